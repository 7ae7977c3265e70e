"""The loops: search, retraining, ranking and random baseline, with their launch into run folders and their memory use."""
