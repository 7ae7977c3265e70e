"""The choice of a genotype: alpha to mixing weights, gradients of alpha, pruning between stages, and the final discretisation."""
