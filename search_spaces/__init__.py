"""Search spaces, one per module, each a frozen value named SPACE."""
