"""Verification of exported networks: each program is run in its own runtime and compared with PyTorch before its file is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rapdarts.data.augment import fractions
from rapdarts.data.batches import ordered
from rapdarts.data.dataset import DataSet
from rapdarts.data.images import Images
from rapdarts.data.randomness import permutation
from rapdarts.deploy import onnx, runtimes
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.deploy.model_card import what
from rapdarts.deploy.model_file import TrainedFile
from rapdarts.deploy.runtimes import Facts, Function
from rapdarts.errors import RapdartsError
from rapdarts.training.metrics import Evaluation, evaluate_logits, predict


@dataclass(frozen=True)
class Runtime:
    """A format for another runtime, with functions to write its files and to open them in that runtime.

    `tolerance` is the largest accepted difference between two logits, relative to the largest logit. `batch` says how many
    images the file takes at once. The packages that the format needs are listed in rapdarts.config.exports.
    """

    write: Callable[[nn.Module, Facts], bytes]
    open: Callable[[bytes], Function]
    tolerance: float
    batch: str


RUNTIMES: dict[str, Runtime] = {
    "onnx": Runtime(onnx.to_onnx, onnx.open_onnx, 1e-4, "batches of any size"),
    "pt2": Runtime(runtimes.to_pt2, runtimes.open_pt2, 1e-4, "batches of any size"),
    "executorch": Runtime(runtimes.to_executorch, runtimes.open_executorch, 1e-3, "one image at a time"),
}
"""Formats of `rapdarts export to=` for other runtimes; `safetensors` is for rapdarts itself."""

COMPARED = 64
"""Number of images for the comparison of a file with PyTorch."""

BATCH = 64
"""Batch size for calibration and testing."""


@dataclass(frozen=True)
class Agreement:
    """The largest difference between two logits, the largest of PyTorch's logits, and the number of images compared."""

    difference: float
    largest: float
    n: int

    @property
    def relative(self) -> float:
        """The difference relative to the largest logit; NaN if a logit is not finite."""
        return self.difference / max(self.largest, 1e-6)

    @property
    def plain(self) -> dict[str, float]:
        """The largest difference and the largest logit by name."""
        return {"largest_difference": self.difference, "largest_logit": self.largest}


def facts_for(trained: TrainedFile, licence: str = "") -> Facts:
    """Return the metadata to store in the file of a trained network."""
    cells = [trained.blueprint.genotype.line] if isinstance(trained.blueprint, DerivedBlueprint) else []
    return Facts(trained.blueprint.image, trained.class_names, "\n".join([what(trained), *cells]), licence)


def write_verified(network: nn.Module, runtime: Runtime, facts: Facts, pixels: Tensor) -> tuple[bytes, Agreement]:
    """Return the content of the file, and how well its logits agree with the network's on `pixels` (n, c, h, w) in 0..1.

    Raises RapdartsError if they differ by more than the tolerance.
    """
    content = runtime.write(network, facts)
    found = agreement(network, runtime.open(content), pixels)
    if not found.relative <= runtime.tolerance:
        raise RapdartsError(
            f"the exported network differs from PyTorch by {found.difference:.2g} in a logit (largest logit:"
            f" {found.largest:.3g}; relative tolerance: {runtime.tolerance:g}), so nothing was written; choose another format."
        )
    return content, found


@torch.no_grad()
def agreement(network: Function, other: Function, pixels: Tensor) -> Agreement:
    """Compare the logits of two networks on `pixels` (n, c, h, w) in 0..1, in batches of 1, of 7 and of all remaining images."""
    batches = [part for part in (pixels[:1], pixels[1:8], pixels[8:]) if len(part)]
    ours, theirs = (torch.cat([run(part) for part in batches]).double() for run in (network, other))
    return Agreement((ours - theirs).abs().max().item(), ours.abs().max().item(), len(pixels))


def pixel_batches(images: Images, index: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images in `index` (m,) (None: all) in batches: (pixels (n, c, h, w) in 0..1, labels (n,))."""
    return ordered(images, index, BATCH, fractions(images.image[0]))


def pixels_to_compare(image: tuple[int, int, int], data: DataSet | None) -> Tensor:
    """Return the pixels (n, c, h, w) in 0..1 for the comparison: those of the first test images or, without data, seeded random pixels."""
    if data is None:
        return torch.rand(COMPARED, *image, generator=torch.Generator().manual_seed(0))
    first = torch.arange(min(COMPARED, len(data.test)))
    return torch.cat([pixels for pixels, _ in pixel_batches(data.test, first)])


def int8(content: bytes, facts: Facts, data: DataSet, count: int) -> tuple[bytes, int]:
    """Quantise an ONNX file to 8 bits, calibrated on up to `count` training images drawn with seed 0.

    Return the new file and the number of images used.
    """
    index = permutation(0, "calibration", 0, len(data.train))[:count]
    batches = (pixels for pixels, _ in pixel_batches(data.train, index))
    return onnx.to_int8(content, facts, batches), len(index)


def evaluate_runtime(network: Function, data: DataSet) -> Evaluation:
    """Evaluate a network, which maps pixels to logits, on the test set. Raises DivergedError for logits that are not finite."""
    return evaluate_logits(*predict(network, pixel_batches(data.test)))
