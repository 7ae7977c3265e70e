"""The choice of a genotype: mixing weights from alpha, gradients of alpha, pruning between stages, and the final discretisation."""
