"""The command line: from arguments to results and exit codes."""
