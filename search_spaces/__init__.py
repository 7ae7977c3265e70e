"""Search spaces, one per module, each a SearchSpace named SPACE."""
