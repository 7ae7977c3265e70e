"""Reading of files with strict checks, and atomic writing."""
