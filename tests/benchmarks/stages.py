"""A stage of P-DARTS' search in two builds: the plain supernet, trained as in P-DARTS' program, and the batched one, run as in a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import Experiment
from rapdarts.config.resolve import resolve_experiment
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import Penalty
from rapdarts.data.dataset import DataSet
from rapdarts.data.images import InMemory
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops.search import alternation, build_stage, priced
from rapdarts.loops.search_batches import Batch, SearchBatches
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.cuda_graph import EAGER, GraphedStep
from rapdarts.training.optimizer import autocast, frozen, set_lr

CLASSES = 10

CASES = {"darts-1": ("darts", 0), "darts-2": ("darts", 1), "darts-3": ("darts", 2), "filters-1": ("filters", 0)}
"""The measured stages: the space of each, and its number in the search, from 0."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a measurement; the defaults are those of P-DARTS on CIFAR-10 (Chen et al. 2019, section 4.2)."""

    batch: int = 96  # images
    channels: int = 16  # of the supernet's first cells
    layers: tuple[int, int, int] = (5, 11, 17)  # cells, by stage
    images: int = 50_000  # in the training set, half for the weights and half for alpha
    side: int = 32  # of an image, pixels


def settings_of(sizes: Sizes) -> Experiment:
    """Return the experiment `cifar10` at these sizes, with a price on MACs and bytes."""
    given: list[tuple[str, Any]] = [
        ("search.batch", sizes.batch),
        ("search.channels", sizes.channels),
        ("search.layers", list(sizes.layers)),
        ("search.cost.macs", 0.2),
        ("search.cost.bytes", 0.2),
        ("save_seconds", 1e6),  # no checkpoint between two steps
    ]
    return resolve_experiment("cifar10", given, "search")


@lru_cache(maxsize=4)
def random_pictures(images: int, side: int, device: torch.device) -> DataSet:
    """Return random images in place of CIFAR-10; their content does not affect the time of a step."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.arange(images) // 2 % CLASSES  # in pairs, so that even a few images can be split by class
    pictures = InMemory(pixels, labels).to(device)
    names = tuple(map(str, range(CLASSES)))
    return DataSet("random", pictures, pictures, pictures.image, CLASSES, names, (0.5,) * 3, (0.25,) * 3, "")


@lru_cache(maxsize=4)
def prices_of(space: str, side: int, device: torch.device) -> PriceTable:
    """Return the prices at the deployment skeleton, 20 cells x 36 channels; only the image shape of the data matters."""
    return priced(settings_of(Sizes()), named_space(space), random_pictures(2, side, device))


@dataclass(frozen=True)
class Stage:
    """A stage of the search: an experiment with this stage alone, its remaining candidates, prices and data."""

    config: Experiment
    space: SearchSpace
    table: PriceTable
    data: DataSet

    @classmethod
    def of(cls, case: str, sizes: Sizes, device: torch.device, amp: str = "none") -> Stage:
        """Return the stage of one of CASES, with skip dropout at its initial rate. `amp` is the precision of the batched supernet."""
        name, number = CASES[case]
        config, space = settings_of(sizes), named_space(name)
        settings = config.search
        # Pruning by random weights leaves candidates that a search could have left.
        weights = np.random.default_rng(number).random(space.mask.shape)
        space = prune(space, weights, settings.candidates[number] or len(space.primitives))
        only = replace(
            settings,
            layers=[settings.layers[number]],
            candidates=[0],
            skip_dropout=[settings.skip_dropout[number]],
            epochs=1,
            warmup_epochs=0,
            amp=amp,
        )
        table, data = prices_of(name, sizes.side, device), random_pictures(sizes.images, sizes.side, device)
        return cls(replace(config, search=only), space, table, data)

    @property
    def device(self) -> torch.device:
        return self.data.train.labels.device

    @property
    def words(self) -> str:
        """Return a short description."""
        settings = self.config.search
        open_ = max(len(edge) for kind in self.space.candidates for edge in kind)
        return f"{settings.layers[0]} cells, {open_} candidates per edge, skip dropout {settings.skip_dropout[0]}"

    @cached_property
    def batches(self) -> tuple[Batch, Batch]:
        """The first batch of the training half and of the search half, each (images (b, 3, h, w), labels (b,))."""
        return next(SearchBatches.of(self.data, self.config).epoch(0))

    def penalty(self) -> Penalty:
        return Penalty(self.table, asdict(self.config.search.cost), device=self.device)


class Plain:
    """The plain supernet, trained as in P-DARTS' program: in NCHW, with a full `loss.backward()` for weights and alpha in every pass."""

    def __init__(self, stage: Stage) -> None:
        settings = self.settings = stage.config.search
        self.train_batch, self.search_batch = stage.batches
        torch.manual_seed(0)
        skeleton = Skeleton(settings.layers[0], settings.channels, stage.data.image, CLASSES)
        self.supernet = Supernet(stage.space, skeleton).to(stage.device)
        self.supernet.dropout.rate = settings.skip_dropout[0]
        self.architecture = Architecture(stage.space, settings.alpha_init).to(stage.device)
        self.penalty = stage.penalty()
        self.weights, self.alpha = list(self.supernet.parameters()), list(self.architecture.parameters())
        self.learned = [*self.weights, *self.alpha]
        self.sgd = torch.optim.SGD(self.weights, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
        betas = (settings.alpha_beta1, settings.alpha_beta2)
        self.adam = torch.optim.Adam(self.alpha, settings.alpha_lr, betas, weight_decay=settings.alpha_weight_decay)

    def alpha_pass(self) -> None:
        """Run forward and backward on the search batch, starting without gradients."""
        self._forget()
        self._backward(self.search_batch)

    def weight_pass(self) -> None:
        """Run forward and backward on the training batch, starting without gradients."""
        self._forget()
        self._backward(self.train_batch)

    def weight_step(self) -> None:
        """Take a weight step, as in the epochs that train weights only."""
        self.sgd.zero_grad()
        self._backward(self.train_batch)
        nn.utils.clip_grad_norm_(self.weights, self.settings.clip)
        self.sgd.step()

    def alternation(self) -> None:
        """Take a step of alpha, price included, then one of the weights."""
        self.adam.zero_grad()
        self._backward(self.search_batch, self.penalty)
        nn.utils.clip_grad_norm_(self.alpha, self.settings.alpha_clip)
        self.adam.step()
        self.weight_step()

    def _forget(self) -> None:
        self.adam.zero_grad()
        self.sgd.zero_grad()

    def _backward(self, batch: Batch, penalty: Penalty | None = None) -> None:
        images, labels = batch
        chosen = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # as P-DARTS' scripts set it
        mixing = self.architecture()
        loss = cross_entropy(self.supernet(images, mixing), labels)
        if penalty is not None:
            loss = loss + penalty(mixing)
        loss.backward()
        torch.backends.cudnn.benchmark = chosen


class Batched:
    """The batched supernet, built, placed and stepped by the search's functions; on a GPU, CUDA graphs replay its steps and passes."""

    def __init__(self, stage: Stage) -> None:
        settings = self.settings = stage.config.search
        (images, labels), (search_images, search_labels) = self.train_batch, self.search_batch = stage.batches
        self.supernet, self.architecture, sgd, adam = build_stage(
            stage.config, stage.space, stage.data, settings.layers[0], 0
        )
        self.supernet.dropout.rate = settings.skip_dropout[0]
        self.supernet.train()
        set_lr(sgd, settings.lr)
        self.weights, self.alpha = list(self.supernet.parameters()), list(self.architecture.parameters())
        self.learned = [*self.weights, *self.alpha]
        step = alternation(settings, self.supernet, self.architecture, sgd, adam, stage.penalty())
        learners = self.supernet, self.architecture, sgd, adam
        recorded = GraphedStep(step, stage.device, learners=learners)
        given = (images, labels, search_images, search_labels)
        self.weight_step: Callable[[], object] = partial(recorded, *given, False)
        self.alternation: Callable[[], object] = partial(recorded, *given, True)
        for_alpha, for_weights = (
            GraphedStep(one, stage.device, learners=learners) for one in (self._for_alpha, self._for_weights)
        )
        self.alpha_pass: Callable[[], Any] = partial(for_alpha, *self.search_batch)
        self.weight_pass: Callable[[], Any] = partial(for_weights, *self.train_batch)

    def _for_alpha(self, images: Tensor, labels: Tensor) -> Any:
        """Run the forward and backward pass of the alpha step."""
        with frozen(self.supernet), autocast(self.settings.amp, images):
            logits = self.supernet(images, self.architecture())
        return torch.autograd.grad(cross_entropy(logits.float(), labels), self.alpha)

    def _for_weights(self, images: Tensor, labels: Tensor) -> Any:
        """Run the forward and backward pass of the weight step."""
        with autocast(self.settings.amp, images):
            logits = self.supernet(images, self.architecture().detach())
        return torch.autograd.grad(cross_entropy(logits.float(), labels), self.weights, allow_unused=True)


BUILDS: dict[str, Callable[[Stage], Plain | Batched]] = {"plain": Plain, "batched": Batched}
"""Both builds have the methods `alpha_pass`, `weight_pass`, `weight_step` and `alternation`, and a list `learned` of learned tensors."""


def settled(device: torch.device) -> int:
    """Return the number of calls after which the time of a step is steady: a GPU first records the step."""
    return EAGER + 2 if device.type == "cuda" else 1
