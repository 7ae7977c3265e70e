"""The two loops, each one function that reads from top to bottom: the search, and the retraining of what it found."""
