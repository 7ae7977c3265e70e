"""The derived network: the ordinary network that a genotype describes, with a given skeleton."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import CellPlan, SearchSpace, Skeleton
from rapdarts.networks.layers import Classifier, ResidualBlock, Stem, preprocess


class DerivedCell(nn.Module):
    """A cell with only the edges of the genotype and the nodes that these edges enter.

    Maps the older input (n, older, H, W) and the newer input (n, newer, h, w) to (n, len(concat)*C, h', w').
    """

    def __init__(self, space: SearchSpace, choice: Cell, plan: CellPlan) -> None:
        super().__init__()
        self.older, self.newer = preprocess(space, plan, affine=True)
        self.inputs, self.concat = choice.inputs, choice.concat
        self.nodes = {
            number: [source for _, source in node] for number, node in enumerate(choice.nodes, self.inputs) if node
        }
        self.edges = nn.ModuleList(
            space.primitives[name](plan.channels, plan.stride if source < choice.inputs else 1, True)
            for node in choice.nodes
            for name, source in node
        )
        # Identities are never dropped: they carry the gradient through the cell (Larsson et al. 2017).
        self.paths = sum(not isinstance(op, nn.Identity) for op in self.edges)

    def forward(self, older: Tensor, newer: Tensor, kept: Tensor | None = None) -> Tensor:
        """Run the cell; `kept` (paths, n), if given, scales the output of every edge except identities, separately for each image."""
        states = dict(enumerate([self.older(older), self.newer(newer)][-self.inputs :]))
        edges, scales = iter(self.edges), iter(()) if kept is None else iter(kept.unbind())
        for number, sources in self.nodes.items():
            terms = []
            for source in sources:
                op = next(edges)
                y = op(states[source])
                if kept is not None and not isinstance(op, nn.Identity):
                    y = y * next(scales)[:, None, None, None].to(y.dtype)
                terms.append(y)
            states[number] = sum(terms[1:], terms[0])
        return torch.cat([states[i] for i in self.concat], 1)


def drop_paths(paths: int, images: int, rate: Tensor) -> Tensor:
    """Draw the scale of every path for every image, (paths, images): 0 with probability `rate`, else 1 / (1 - rate).

    `rate` is a scalar on the device. A path is dropped for whole images, and the mean of its output is unchanged
    (Larsson et al. 2017, section 3; scaled as in Zoph et al. 2018).
    """
    return (torch.rand((paths, images), device=rate.device) >= rate) / (1 - rate)


class AuxiliaryHead(nn.Module):
    """A second classifier in the middle of the network, used only in training: (n, inputs, h, w) to (n, classes).

    It was proposed by Szegedy et al. 2015; the layers are as in the code of Liu et al. 2019. It is designed for feature maps that
    a 5x5 average pool (stride 3, or 2 after the imagenet stem) reduces to 2x2. For maps of any other `size`, an adaptive pool
    replaces the average pool, and `adaptive` is set.
    """

    def __init__(self, inputs: int, size: tuple[int, int], stride: int, classes: int) -> None:
        super().__init__()
        self.adaptive = any((side - 5) // stride + 1 != 2 for side in size)
        pool = nn.AdaptiveAvgPool2d(2) if self.adaptive else nn.AvgPool2d(5, stride, count_include_pad=False)
        self.features = nn.Sequential(
            nn.ReLU(),
            pool,
            nn.Conv2d(inputs, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.linear = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).flatten(1))


class DerivedNetwork(nn.Module):
    """The network that a genotype describes: `network(images)` returns the logits.

    In training, a network with an auxiliary head returns the pair (logits, auxiliary logits) instead. `paths` is the number of
    edges that can be dropped in training, that is, all edges except identities. Pass the scales that `drop_paths` draws as
    `kept`.
    """

    def __init__(self, genotype: Genotype, space: SearchSpace, skeleton: Skeleton, auxiliary: bool = False) -> None:
        super().__init__()
        plans = skeleton.cells(space, genotype.widths)
        self.stem = Stem(space, skeleton)
        self.cells = nn.ModuleList(
            DerivedCell(space, genotype.cells[plan.kind], plan) if plan.kind in space.kinds else ResidualBlock(plan)
            for plan in plans
        )
        self.paths_of_cells = [getattr(cell, "paths", 0) for cell in self.cells]
        self.paths = sum(self.paths_of_cells)
        outputs = [genotype.widths.get(plan.kind, 1) * plan.channels for plan in plans]
        self.classifier = Classifier(space, outputs[-1], skeleton.classes)
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary:
            plan = plans[skeleton.auxiliary_layer]
            self.auxiliary = AuxiliaryHead(
                outputs[plan.layer], plan.inside, 2 if skeleton.stem == "imagenet" else 3, skeleton.classes
            )
        self.auxiliary_layer = skeleton.auxiliary_layer

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Map images (n, c, h, w) and scales `kept` (paths, n) to logits (n, classes), or to the pair (logits, auxiliary logits)."""
        rows = [None] * len(self.cells) if kept is None else kept.split(self.paths_of_cells)
        extra = None
        older, newer = self.stem(images)
        for layer, (cell, of_cell) in enumerate(zip(self.cells, rows, strict=True)):
            older, newer = newer, cell(older, newer, of_cell)
            if self.training and self.auxiliary is not None and layer == self.auxiliary_layer:
                extra = self.auxiliary(newer)
        logits = self.classifier(newer)
        return logits if extra is None else (logits, extra)
