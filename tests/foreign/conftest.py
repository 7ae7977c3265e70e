"""Make timm importable alongside a CPU build of torch.

timm imports torchvision, whose compiled operators need CUDA. Without them, torchvision still imports if the operators that it
describes to torch exist, so their signatures are declared before the import. None of them is ever called.
"""

from __future__ import annotations

import torch

MISSING = ("nms", "qnms")
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
"""Keeps the declarations alive."""

for name in MISSING:
    if not hasattr(torch.ops.torchvision, name):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
