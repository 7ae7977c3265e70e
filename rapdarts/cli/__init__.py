"""The command line: words in, results and exit codes out."""
