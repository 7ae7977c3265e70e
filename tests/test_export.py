"""Export: every format takes every genotype of the DARTS space, and what can be read back means the same cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapdarts.cli import main
from rapdarts.config import ExportConfig
from rapdarts.export import FORMATS
from rapdarts.genotype import Genotype, parse, parse_darts, parse_json, random_genotype
from rapdarts.knobs import keys
from rapdarts.literature import LITERATURE
from search_spaces.darts import SPACE

DARTS = {name: genotype for name, genotype in LITERATURE.items() if genotype.space == "darts"}


def drawn(seed: int) -> Genotype:
    return random_genotype(SPACE, np.random.default_rng(seed))


genotypes = st.sampled_from(list(DARTS.values())) | st.builds(drawn, st.integers(0, 2**32))


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=10)
@given(genotype=genotypes)
def test_every_format_takes_every_genotype(form: str, genotype: Genotype) -> None:
    text = FORMATS[form](genotype)
    assert text.strip() and text.endswith("\n") and not text.endswith("\n\n")
    assert text == FORMATS[form](parse(genotype.to_json(), "here"))


@settings(deadline=None)
@given(genotype=genotypes)
def test_what_is_written_reads_back_to_the_same_cells(genotype: Genotype) -> None:
    assert parse_json(FORMATS["json"](genotype), "here") == genotype
    assert parse_darts(FORMATS["darts"](genotype), "here", genotype.space).cells == genotype.cells


def test_the_command_line_offers_every_format() -> None:
    (to,) = (key for key in keys(ExportConfig) if key.name == "to")
    assert set(to.facts["choices"]) == set(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_writes_what_the_format_says(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FORMATS[form](LITERATURE["PDARTS"])
    assert main(["export", "PDARTS", f"to={form}"]) == 0
    assert capsys.readouterr().out == text
    assert main(["export", "PDARTS", f"to={form}", f"out={tmp_path / 'cell'}"]) == 0
    assert (tmp_path / "cell").read_text(encoding="utf-8") == text


def test_cells_without_words_in_the_dialect_can_still_be_drawn() -> None:
    assert "<svg " in FORMATS["svg"](LITERATURE["NASNet"])
