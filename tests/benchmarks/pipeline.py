"""Part `data`: the data pipeline alone, crop, flip, cutout and normalisation included."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from rapdarts.cost.measure import timer
from rapdarts.data.augment import Augment
from rapdarts.data.batches import Batches
from tests.benchmarks.stages import Sizes, random_pictures
from tests.benchmarks.turns import in_turns, say


def measure(sizes: Sizes, device: torch.device, rounds: int, warm_up: int) -> dict[str, Any]:
    """Return the throughput over whole epochs in images a second, and the seconds of each epoch."""
    say("data: reading epochs")
    data = random_pictures(sizes.images, sizes.side, device)
    augment = Augment(data.mean, data.std, crop=4, flip=True, cutout=sizes.side // 2)
    batches = Batches(data.train, torch.arange(len(data.train)), sizes.batch, 0, "benchmark", augment)
    epochs = iter(range(warm_up + rounds))

    def epoch() -> None:
        for _ in batches.epoch(next(epochs)):
            pass

    times = in_turns({"epoch": epoch}, timer(device), rounds, warm_up)["epoch"]
    images = min(len(data.train), batches.steps * sizes.batch)  # a last batch of a single image is dropped
    return {"images": images, "batch": sizes.batch, "seconds": times, "images_per_s": images / median(times)}


def report(figures: Mapping[str, Any]) -> str:
    speed, batch, images = figures["images_per_s"], figures["batch"], figures["images"]
    return (
        f"data: {speed:,.0f} images a second in batches of {batch}, the median over whole epochs of {images:,} images"
    )
