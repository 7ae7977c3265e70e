"""The fast supernet and its GPU kernels."""
