"""Filter designs in the DARTS cell: 12 primitives, with dense, separable, bottleneck and spatially factorized convolutions."""

from rapdarts import SearchSpace, choose

SPACE = SearchSpace(
    "filters",
    choose(
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "conv_3x3",
        "conv_5x5",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "bottleneck_3x3",
        "bottleneck_5x5",
        "factorized_3x3",
        "factorized_5x5",
    ),
)
