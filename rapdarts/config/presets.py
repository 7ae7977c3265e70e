"""Presets of strategies and recipes: values from the papers or their code, which other settings override."""

from __future__ import annotations

from typing import Any

STRATEGIES: dict[str, dict[str, Any]] = {
    "pdarts": {
        "search.layers": [5, 11, 17],
        "search.candidates": [0, 5, 3],
        "search.skip_dropout": [0.1, 0.4, 0.7],
        "search.channels": 16,
        "search.epochs": 25,
        "search.warmup_epochs": 10,
        "search.batch": 96,
        "search.lr": 0.025,
        "search.lr_min": 0.0,
        "search.momentum": 0.9,
        "search.weight_decay": 3e-4,
        "search.clip": 5.0,
        "search.alpha_lr": 6e-4,
        "search.alpha_beta1": 0.5,
        "search.alpha_beta2": 0.999,
        "search.alpha_weight_decay": 1e-3,
        "search.alpha_clip": 5.0,
        "search.alpha_init": 1e-3,
        "search.rule": "auto",
    }
}
STRATEGIES |= {
    "darts": {
        **STRATEGIES["pdarts"],
        "search.layers": [8],
        "search.candidates": [0],
        "search.skip_dropout": [0.0],
        "search.epochs": 50,
        "search.warmup_epochs": 0,
        "search.batch": 64,
        "search.lr_min": 0.001,
        "search.alpha_lr": 3e-4,
        "search.alpha_clip": 0.0,
    },
}
"""Presets of `search.strategy`. Those of pdarts are also the defaults; `random` has none.

pdarts: Chen et al. 2019, section 4.2; darts: Liu et al. 2019, appendix A.1.
"""

RECIPES: dict[str, dict[str, Any]] = {
    "pdarts": {
        "retrain.epochs": 600,
        "retrain.warmup_epochs": 0,
        "retrain.batch": 128,
        "retrain.accumulate": 1,
        "retrain.lr": 0.025,
        "retrain.lr_min": 0.0,
        "retrain.schedule": "cosine",
        "retrain.momentum": 0.9,
        "retrain.nesterov": False,
        "retrain.weight_decay": 3e-4,
        "retrain.clip": 5.0,
        "retrain.ema": 0.0,
        "retrain.drop_path": 0.3,
        "retrain.auxiliary": 0.4,
        "retrain.label_smoothing": 0.0,
        "retrain.cutout": 16,
        "retrain.jitter": 0.0,
        "retrain.smallest_crop": 1.0,
    }
}
RECIPES |= {
    "darts": {**RECIPES["pdarts"], "retrain.batch": 96, "retrain.drop_path": 0.2},
    "imagenet_mobile": {
        **RECIPES["pdarts"],
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
        "retrain.label_smoothing": 0.1,
        "retrain.cutout": 0,
        "retrain.jitter": 0.4,
        "retrain.smallest_crop": 0.08,
    },
    "fast": {
        **RECIPES["pdarts"],
        "retrain.epochs": 15,
        "retrain.warmup_epochs": 2,
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
"""Presets of `retrain.recipe`: a complete training recipe, except for `amp` and `compile`. Those of pdarts are also the defaults.

pdarts and imagenet_mobile: Chen et al. 2019, section 4.3; darts: Liu et al. 2019, appendix A.2; docs/fidelity.md compares
them with the authors' code. fast: docs/decisions.md.
"""

PRESETS = {"search.strategy": STRATEGIES, "retrain.recipe": RECIPES}
"""Keys that preset other keys.

Setting such a key applies all presets of its value. They override earlier settings, and settings given together with the key
override them. Keys preset by the previous value but not by the new one return to their defaults.
"""
