"""How one chooses: alpha to mixing weights, gradients of alpha, pruning between stages, and the discrete genotype at the end."""
