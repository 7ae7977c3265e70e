"""What a named way to search or to train sets: the values that its paper or its code has, under whatever else is given."""

from __future__ import annotations

from typing import Any

STRATEGIES: dict[str, dict[str, Any]] = {
    "pdarts": {},
    "darts": {
        "search.layers": [8],
        "search.candidates": [0],
        "search.skip_dropout": [0.0],
        "search.epochs": 50,
        "search.warmup_epochs": 0,
        "search.batch": 64,
        "search.channels": 16,
        "search.lr": 0.025,
        "search.lr_min": 0.001,
        "search.alpha_lr": 3e-4,
        "search.alpha_clip": 0.0,
        "search.rule": "darts",
    },
}
"""What `search.strategy` presets. pdarts is what the defaults are, `random` presets nothing.

pdarts: Chen et al. 2019, section 4.2; darts: Liu et al. 2019, appendix A.1.
"""

RECIPES: dict[str, dict[str, Any]] = {
    "pdarts": {},
    "darts": {
        "retrain.epochs": 600,
        "retrain.batch": 96,
        "retrain.lr": 0.025,
        "retrain.drop_path": 0.2,
        "retrain.auxiliary": 0.4,
        "retrain.cutout": 16,
    },
    "imagenet_mobile": {
        "skeleton.layers": 14,
        "skeleton.channels": 48,
        "skeleton.stem": "imagenet",
        "data.crop": 0,
        "retrain.epochs": 250,
        "retrain.warmup_epochs": 5,
        "retrain.batch": 1024,
        "retrain.lr": 0.5,
        "retrain.schedule": "linear",
        "retrain.weight_decay": 3e-5,
        "retrain.drop_path": 0.0,
        "retrain.auxiliary": 0.4,
        "retrain.label_smoothing": 0.1,
        "retrain.cutout": 0,
        "retrain.jitter": 0.4,
        "retrain.smallest_crop": 0.08,
    },
    "fast": {
        "retrain.epochs": 15,
        "retrain.warmup_epochs": 2,
        "retrain.batch": 128,
        "retrain.lr": 0.2,
        "retrain.nesterov": True,
        "retrain.weight_decay": 5e-4,
        "retrain.ema": 0.95,
        "retrain.drop_path": 0.0,
        "retrain.auxiliary": 0.0,
        "retrain.label_smoothing": 0.1,
        "retrain.cutout": 0,
    },
}
"""What `retrain.recipe` presets. pdarts is what the defaults are.

pdarts and imagenet_mobile: Chen et al. 2019, section 4.3; darts: Liu et al. 2019, appendix A.2; docs/fidelity.md says how
they compare with the authors' code. fast: docs/decisions.md.
"""

PRESETS = {"search.strategy": STRATEGIES, "retrain.recipe": RECIPES}
"""The keys whose values preset others: over whatever was said before, and under what is said beside them.

What the value in force before had preset, and the new one does not, goes back to its default.
"""
