"""Triton kernels of the batched supernet, and their checks, imported only on a GPU; CUDA builds of torch include Triton."""
