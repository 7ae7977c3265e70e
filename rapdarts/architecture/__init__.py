"""Search spaces and genotypes, with their file formats and drawings."""
