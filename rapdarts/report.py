"""A table of finished runs, in Markdown, read from their folders."""

from __future__ import annotations
