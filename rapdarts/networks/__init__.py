"""Networks: the primitives, the supernet that mixes them all, and the ordinary network that a genotype describes."""
