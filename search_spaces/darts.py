"""The space of DARTS and P-DARTS (Liu et al. 2019, section 3.1.1; Chen et al. 2019, section 4.1): 14 edges, 8 primitives."""

from rapdarts import SearchSpace, choose

SPACE = SearchSpace(
    "darts",
    choose(
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
)
