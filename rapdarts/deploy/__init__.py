"""The network that ships: its blueprint, its file, and export to other runtimes."""
