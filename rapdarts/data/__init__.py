"""Data sets: reading, downloading, augmenting and batching images, and the published accuracies of NAS-Bench-201."""
