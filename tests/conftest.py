"""What all tests share."""

from __future__ import annotations

import torch

# On a small shared machine two threads are several times slower than one.
torch.set_num_threads(1)
