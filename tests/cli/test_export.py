"""`rapdarts export` of genotypes: every format of the library, to stdout and to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import read_genotype
from rapdarts.architecture.writing import FORMATS
from rapdarts.cli.main import main
from rapdarts.config.command_options import ExportConfig
from rapdarts.config.key_values import keys
from rapdarts.deploy.verify import RUNTIMES
from tests.edited import unsealed

OTHERS = {"darts": "nasbench201", "nasbench201": "darts"}
"""Formats that can express only one of these spaces, each with the space that it rejects."""


def test_the_command_line_offers_every_format() -> None:
    (to,) = (key for key in keys(ExportConfig) if key.name == "to")
    assert set(to.facts["choices"]) == {*FORMATS, "safetensors", *RUNTIMES}


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_writes_the_output_of_the_format(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bench").write_text("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|\n")
    for target in ("PDARTS", str(tmp_path / "bench")):
        genotype = LITERATURE.get(target) or read_genotype(Path(target))
        if genotype.space == OTHERS.get(form):
            assert main(["export", target, f"to={form}"]) == 2
            assert "cannot be written in the" in capsys.readouterr().err
            continue
        text = FORMATS[form](genotype)
        assert main(["export", target, f"to={form}"]) == 0
        assert capsys.readouterr().out == text
        assert main(["export", target, f"to={form}", f"out={tmp_path / 'cell'}"]) == 0
        assert unsealed((tmp_path / "cell").read_text(encoding="utf-8")) == text
        capsys.readouterr()
