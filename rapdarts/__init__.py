"""Differentiable, resource-aware neural architecture search: find, prove and train a network that fits."""

__version__ = "0.1.0"
