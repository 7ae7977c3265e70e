"""The network that ships: its blueprint, its file, and the formats other runtimes read."""
