"""What all tests share."""

from __future__ import annotations

import os

import torch

# Kernels for a GPU are interpreted where there is none. Triton asks when it is imported, which torch may do at any time.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# On a small shared machine two threads are several times slower than one.
torch.set_num_threads(1)
