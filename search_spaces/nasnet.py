"""The cells of NASNet (Zoph et al. 2018) and AmoebaNet (Real et al. 2019): five nodes, each of which may use an input twice."""

from rapdarts import SearchSpace, choose

SPACE = SearchSpace(
    "nasnet",
    choose(
        "none",
        "skip_connect",
        "max_pool_3x3",
        "avg_pool_3x3",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "conv_7x1_1x7",
    ),
    nodes=5,
    repeat_inputs=True,
)
