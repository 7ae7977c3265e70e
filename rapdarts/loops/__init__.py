"""The loops: search, retraining, ranking and random baseline; their launch into run folders, and the memory they take."""
