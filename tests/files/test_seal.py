"""Seals: damage to a file that rapdarts wrote is noticed, an edit on purpose is possible, and files of other programs are accepted."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype, read_genotype
from rapdarts.cost.prices import read_hardware
from rapdarts.errors import DamagedError
from rapdarts.files import seal

TEXT = '{\n  "format": "x",\n  "numbers": [1, 2.5, 1e-07],\n  "name": "\\u00e9"\n}\n'


@pytest.fixture
def cell() -> Genotype:
    return LITERATURE["PDARTS"]


def test_an_object_carries_its_hash_in_its_first_line() -> None:
    sealed = seal.seal_json(TEXT)
    first, second, *rest = sealed.splitlines(keepends=True)
    assert second.startswith('  "sha256": "') and "".join([first, *rest]) == TEXT
    assert seal.unseal(json.loads(sealed), "it") == json.loads(TEXT)
    assert seal.seal_json(sealed) == sealed
    assert seal.unseal(json.loads(TEXT), "it") == json.loads(TEXT)


@pytest.mark.parametrize("tree", ['{"a": 1}', '{"a": {"b": []}, "c": null}', '{\n "a": 1\n}\n'])
def test_every_layout_of_json_can_be_sealed(tree: str) -> None:
    assert seal.unseal(json.loads(seal.seal_json(tree)), "it") == json.loads(tree)


def test_another_layout_of_the_same_values_is_the_same_file() -> None:
    tree = json.loads(seal.seal_json(TEXT))
    for text in (json.dumps(tree), json.dumps(tree, indent=8, sort_keys=True, ensure_ascii=False)):
        assert seal.unseal(json.loads(text), "it") == json.loads(TEXT)


@pytest.mark.parametrize(
    "old, new", [("2.5", "2.6"), ('"x"', '"y"'), ("[1, ", "[1, 0, "), ('"name"', '"Name"'), ("1,", "1.0,")]
)
def test_a_changed_value_is_refused(old: str, new: str) -> None:
    changed = json.loads(seal.seal_json(TEXT).replace(old, new, 1))
    with pytest.raises(
        DamagedError, match=r"^it is damaged: .*; if you edited it on purpose, remove the field sha256\.$"
    ):
        seal.unseal(changed, "it")


def test_every_object_of_a_list_carries_its_own_hash() -> None:
    sealed = json.loads(seal.seal_json('[{"a": 1}, {"a": 2}]'))
    assert [seal.unseal(one, "it") for one in sealed] == [{"a": 1}, {"a": 2}]
    assert len({one["sha256"] for one in sealed}) == 2


def test_a_yaml_file_carries_its_hash_in_its_first_line() -> None:
    sealed = seal.seal_yaml("seed: 1\n")
    assert sealed.endswith("\nseed: 1\n") and seal.seal_yaml(sealed) == sealed
    assert seal.check_yaml(sealed, "it") and seal.check_yaml(sealed.replace("\n", "\r\n"), "it")
    assert not seal.check_yaml("seed: 1\n", "it")
    for damaged in (sealed[:-2], sealed + "\n", sealed.replace("seed: 1", "seed: 2")):
        with pytest.raises(DamagedError, match="remove the first line, with its sha256"):
            seal.check_yaml(damaged, "it")


@pytest.mark.parametrize(
    "text", [TEXT, '{"a": 1}', "{}", "[]", '[{"a": 1}, {"b": 2.5}]', '[{"a": 1}, 2]', "3", '{"sha256": 1, "a": 2}']
)
def test_the_seal_of_a_file_that_is_written_is_the_one_that_is_read(text: str) -> None:
    for given in (text, seal.seal_json(text)):
        content, own = seal.seal_file("genotype.json", given)
        assert (content, own) == (seal.seal_json(text), seal.seal_of_json(seal.seal_json(text)))
    for given in ("seed: 1\n", seal.seal_yaml("seed: 1\n")):
        content, own = seal.seal_file("hardware.yaml", given)
        assert content == seal.seal_yaml("seed: 1\n") and f"sha256 {own}\n" in content


def test_every_bit_of_a_binary_file_counts() -> None:
    content = seal.seal_bytes(b'head {\\"sha256\\": \\"' + seal.BLANK.encode() + b'\\"} tail')
    own = seal.seal_of_bytes(content)
    seal.check_bytes(content, own, "it")
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises(DamagedError):
            seal.check_bytes(bytes(damaged), own, "it")


@pytest.mark.parametrize("chunk", [1, 7, 63, 64, 65, 1000])
def test_the_hash_of_a_stream_does_not_depend_on_its_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 65 contents, the seal begins at every place of a chunk of up to 64 bytes."""
    contents = [seal.seal_bytes(bytes(at) + seal.BLANK.encode() + b"tail" * 50) for at in range(65)]
    monkeypatch.setattr(seal, "CHUNK", chunk)
    for at, content in enumerate(contents):
        own = content[at : at + 64].decode()
        assert own == hashlib.sha256(content.replace(own.encode(), seal.BLANK.encode())).hexdigest()
        seal.check_bytes(content, own, "it")
        with pytest.raises(DamagedError):
            seal.check_bytes(content[:-1], own, "it")
        with pytest.raises(DamagedError):
            seal.check_bytes(content.replace(own.encode(), bytes(64)), own, "it")


def test_a_genotype_in_a_file_of_ours_is_checked(cell: Genotype, tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(seal.seal_json(cell.to_json()))
    assert read_genotype(path) == cell
    path.write_text(path.read_text().replace("sep_conv_3x3", "sep_conv_5x5", 1))
    with pytest.raises(DamagedError, match=r"genotype\.json is damaged"):
        read_genotype(path)
    lines = [line for line in path.read_text().splitlines() if "sha256" not in line]
    path.write_text("\n".join(lines))
    assert read_genotype(path).cells != cell.cells


def test_a_genotype_in_a_list_is_checked_with_its_neighbours(cell: Genotype) -> None:
    entries = [{"costs": {"macs": 1}, "genotype": cell.line}, {"costs": {"macs": 2}, "genotype": cell.line}]
    text = seal.seal_json(json.dumps(entries))
    assert parse_genotype(text, "it", member="1.genotype").cells == cell.cells
    with pytest.raises(DamagedError, match="it, entry 1 is damaged"):
        parse_genotype(text.replace('"macs": 2', '"macs": 3'), "it", member="0.genotype")


def test_a_file_of_ours_without_a_hash_is_reported_once_in_a_folder(
    cell: Genotype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "older.json").write_text(cell.to_json())
    (tmp_path / "darts.txt").write_text(cell.to_darts())
    with caplog.at_level(logging.WARNING):
        assert read_genotype(tmp_path / "darts.txt").cells == cell.cells
        assert not caplog.messages  # a file of another program is not expected to have one
        for _ in range(2):
            assert read_genotype(tmp_path / "older.json") == cell
    assert [f"{tmp_path / 'older.json'} has no sha256" in message for message in caplog.messages] == [True]


def test_the_file_of_another_run_is_refused(cell: Genotype, tmp_path: Path) -> None:
    own, text = seal.seal_file("genotype.json", cell.to_json()), seal.seal_json(LITERATURE["DARTS_V2"].to_json())
    (tmp_path / "result.json").write_text(seal.seal_json(json.dumps({seal.FILES: {"genotype.json": own[1]}})))
    (tmp_path / "genotype.json").write_text(str(own[0]))
    assert read_genotype(tmp_path / "genotype.json") == cell
    (tmp_path / "genotype.json").write_text(text)
    with pytest.raises(DamagedError, match=r"is not the file that the run in .* wrote"):
        read_genotype(tmp_path / "genotype.json")
    (tmp_path / "elsewhere.json").write_text(text)
    assert read_genotype(tmp_path / "elsewhere.json").cells == LITERATURE["DARTS_V2"].cells


def test_a_hardware_table_of_a_run_is_the_one_that_it_wrote(tmp_path: Path) -> None:
    own, path = "mac_32: 9.9\n", tmp_path / "hardware.yaml"
    content, sha = seal.seal_file("hardware.yaml", own)
    assert isinstance(content, str)
    path.write_text(content)
    (tmp_path / "result.json").write_text(seal.seal_json(json.dumps({"files": {"hardware.yaml": sha}})))
    assert read_hardware(str(path)).mac_32 == 9.9
    for damaged in ("", "# written by rapd", own, seal.seal_yaml("mac_32: 4.6\n")):
        path.write_text(damaged)
        with pytest.raises(DamagedError, match=r"hardware\.yaml is not the file that the run in"):
            read_hardware(str(path))
    (tmp_path / "result.json").unlink()  # the table of a user
    path.write_text(own)
    assert read_hardware(str(path)).mac_32 == 9.9


def test_a_damaged_result_is_reported_with_what_to_do(
    cell: Genotype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "genotype.json").write_text(seal.seal_json(cell.to_json()))
    result = seal.seal_json(json.dumps({seal.FILES: {}, "test_accuracy": 0.5}))
    again = "repeat the command of the run with resume=true to write it again"
    (tmp_path / "result.json").write_text(result[:-20])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert read_genotype(tmp_path / "genotype.json") == cell
    (said,) = caplog.messages
    assert said == (
        f"{tmp_path / 'result.json'} is damaged, so the other files there cannot be compared with it; {again}"
    )
    (tmp_path / "result.json").write_text(result.replace("0.5", "0.6"))
    with pytest.raises(DamagedError, match=rf"result\.json is damaged: .*, or move it to another folder and {again}\."):
        read_genotype(tmp_path / "genotype.json")
