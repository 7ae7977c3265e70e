"""Files of trained networks: large ones, and ones that are replaced while they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import search_spaces
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.config.command_options import ExportConfig
from rapdarts.config.experiment import DataConfig
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy import exporting, model_file
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.deploy.model_file import TrainedFile, load_network, read_trained, to_safetensors
from rapdarts.errors import DamagedError, InputError
from rapdarts.files import regular, seal


def content(seed: int) -> bytes:
    """Return the content of the file of a network with random weights."""
    data = load_dataset(DataConfig(name="digits", fraction=0.1), torch.device("cpu"), 0)
    skeleton = Skeleton(3, 4, data.image, data.classes, "cifar")
    blueprint = DerivedBlueprint(LITERATURE["PDARTS"], search_spaces.darts.SPACE, skeleton)
    torch.manual_seed(seed)
    return to_safetensors(blueprint.build().state_dict(), blueprint, data)


@pytest.fixture(scope="module")
def files() -> tuple[bytes, bytes]:
    return content(1), content(2)


@pytest.fixture
def trained(files: tuple[bytes, bytes], tmp_path: Path) -> TrainedFile:
    (tmp_path / "network.safetensors").write_bytes(files[0])
    return read_trained(tmp_path / "network.safetensors")


def export(trained: TrainedFile) -> bytes:
    out = trained.path.with_name("copy.safetensors")
    exporting.export_safetensors(trained, ExportConfig(to="safetensors", out=str(out)))
    return out.read_bytes()


def test_a_network_may_be_larger_than_other_files(
    trained: TrainedFile, files: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written can be read: only the limit of networks holds, not that of files that are read whole."""
    monkeypatch.setattr(regular.read_bytes, "__defaults__", ("", 1000, "", ""))
    assert read_trained(trained.path).seal == seal.seal_of_bytes(files[0])
    assert len(load_network(trained).state_dict()) > 100
    assert export(trained) == files[0]
    monkeypatch.setattr(model_file, "MOST_BYTES", 1000)
    for read in (lambda: read_trained(trained.path), lambda: load_network(trained), lambda: export(trained)):
        with pytest.raises(InputError, match="at most 1,000 can be read"):
            read()


def test_another_network_with_the_name_of_one_that_was_checked_is_refused(
    trained: TrainedFile, files: tuple[bytes, bytes]
) -> None:
    trained.path.write_bytes(files[1])
    assert read_trained(trained.path).seal != trained.seal  # it is a network of its own
    for read in (load_network, model_file.content_of):
        with pytest.raises(DamagedError, match="content does not match its sha256"):
            read(trained)


def test_a_network_that_is_replaced_while_it_is_read_is_read_to_its_end(
    trained: TrainedFile, files: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tensors are those of the file whose hash was checked, not those of a file that has taken its name."""
    expected, check = load_network(trained).state_dict(), seal.check_stream

    def late(*given: object) -> None:
        check(*given)  # type: ignore[arg-type]
        (trained.path.parent / "other").write_bytes(files[1])
        (trained.path.parent / "other").replace(trained.path)

    monkeypatch.setattr(seal, "check_stream", late)
    found = load_network(trained).state_dict()
    assert trained.path.read_bytes() == files[1]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
