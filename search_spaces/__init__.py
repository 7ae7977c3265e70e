"""Search spaces, one a file: each module holds a frozen value named SPACE."""
