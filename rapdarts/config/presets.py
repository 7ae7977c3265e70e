"""What a named way to search or to train sets: the values that its paper or its code has, under whatever else is given."""

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
"""What `search.strategy` presets. pdarts is what the defaults are too, `random` presets nothing.

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
"""What `retrain.recipe` presets: a whole training, but not how it is computed. pdarts is what the defaults are too.

pdarts and imagenet_mobile: Chen et al. 2019, section 4.3; darts: Liu et al. 2019, appendix A.2; docs/fidelity.md says how
they compare with the authors' code. fast: docs/decisions.md.
"""

PRESETS = {"search.strategy": STRATEGIES, "retrain.recipe": RECIPES}
"""The keys whose values preset others: whoever names one gets all that it presets, over whatever was said before and under
what is said beside it.

What the value in force before had preset, and the new one does not, goes back to its default.
"""
