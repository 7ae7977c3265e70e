"""Triton kernels for what the batched supernet does on a GPU; CUDA builds of torch bring Triton, and nothing else imports this."""
