"""What may be chosen and what was chosen: search spaces, genotypes, their file formats and drawings."""
