"""The loops of the search, retraining, ranking and random baseline, their launch in a run folder, and their memory use."""
