"""Settings: knobs with their units and ranges, and the experiments that they make up."""
