"""Training of any network: resumable runs, checkpoints, optimisers, schedules, CUDA graphs and several processes."""
