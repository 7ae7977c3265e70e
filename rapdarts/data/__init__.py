"""Data sets: reading, downloading, augmenting and batching images; and the known accuracies of NAS-Bench-201."""
