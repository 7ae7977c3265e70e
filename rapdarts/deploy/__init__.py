"""The network to deploy: its blueprint, its file, and its export to other runtimes."""
