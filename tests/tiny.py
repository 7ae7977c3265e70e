"""A search of the digits that takes seconds: the settings shared by the tests of whole searches."""

from __future__ import annotations

TINY = [
    "threads=1",
    "data.fraction=0.1",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "search.channels=2",
    "search.layers=[3,3]",
    "search.candidates=[0,3]",
    "search.skip_dropout=[0.3,0.5]",
    "search.epochs=2",
    "search.warmup_epochs=1",
    "search.batch=24",
]
