"""Warnings of a run about its own result, as every report shows them. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """Return the warnings in the report of a run, one line each; older runs have none."""
    return [f"warning: {one}" for one in report.get("warnings", [])]
