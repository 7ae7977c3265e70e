"""Triton kernels of the batched supernet, imported only on a GPU; CUDA builds of torch include Triton."""
