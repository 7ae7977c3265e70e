"""Data sets: reading, downloading, augmenting and batching images."""
