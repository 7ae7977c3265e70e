"""Training of any network: runs that resume anywhere, checkpoints, optimisers, schedules, CUDA graphs and processes."""
