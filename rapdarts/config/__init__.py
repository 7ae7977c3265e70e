"""Settings: knobs with units and ranges, and experiments, which consist of knobs."""
