"""The space of NAS-Bench-201 (Dong and Yang 2020, section 2.1): one cell, 6 edges (all kept), 5 primitives, 15,625 architectures."""

from rapdarts import SearchSpace, choose

SPACE = SearchSpace(
    "nasbench201",
    choose("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
    nodes=3,
    inputs=1,
    keep=None,
    derive_none=True,
    deployment=(17, 16),
    max_skips=3,
    skip_paths="one",
)
