"""Settings: every knob with its unit and range, and the experiments they make up."""
