"""The search: weights and architecture in turns, deeper and with fewer candidates from stage to stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import SKIP, SearchSpace, Skeleton
from rapdarts.config.experiment import Experiment, SearchConfig, budget_limits
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import Penalty, uniform_mixing
from rapdarts.cost.prices import prices
from rapdarts.data.augment import Augment
from rapdarts.data.batches import Batches
from rapdarts.data.dataset import DataSet, split
from rapdarts.data.randomness import key
from rapdarts.deploy import skeletons
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.search_record import cost_facts, heat_map, shown
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.layers import remarks_on_pools
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.bilevel import unrolled_gradient
from rapdarts.strategy.budgets import budgets_on, check_budgets, skip_cap, widest
from rapdarts.strategy.derive import Derivation, alphas_to_json, derive, mixing_weights
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.cuda_graph import GraphedStep
from rapdarts.training.meter import Sum
from rapdarts.training.optimizer import autocast, frozen, optimizer_step, set_lr, sgd_for, to_device
from rapdarts.training.run import Run, Stateful
from rapdarts.training.schedules import cosine, skip_dropout

Batch = tuple[Tensor, Tensor]

BEST = 5
"""Number of the best genotypes within the budgets that go into candidates.json."""


def search(
    config: Experiment, space: SearchSpace, data: DataSet, run: Run, table: PriceTable, provenance: dict[str, Any]
) -> Derivation:
    """Train weights and architecture in turns; from stage to stage, grow deeper and drop candidates (Chen et al. 2019).

    `table` holds the prices at the deployment skeleton, as `priced` gives them. Writes alphas.json, candidates.json
    and genotype.json into the run folder. Raises DivergedError if a number stops being finite, Preempted if a signal
    asked to stop.
    """
    settings = config.search
    halves = SearchBatches.of(data, config)
    limits, cap = budget_limits(settings.budget), skip_cap(settings)
    budgets = budgets_on(table, limits)
    penalty = Penalty(table, asdict(settings.cost), limits, settings.budget_rate, data.train.labels.device)
    stages = list(zip(settings.layers, settings.candidates, settings.skip_dropout, strict=True))
    mixing = uniform_mixing(space.mask).weights.numpy()

    for stage, (layers, keep, dropout_rate) in enumerate(stages):
        # Drop the candidates that the last stage left weakest; rebuild everything that learns.
        space = prune(space, mixing, keep or len(space.primitives), budgets, cap)
        supernet, architecture, sgd, adam = build_stage(config, space, data, layers, stage)
        for remark in remarks_on_pools(supernet, data.train.labels.device):
            run.screen.say(remark)
        step = alternation(settings, supernet, architecture, sgd, adam, penalty)
        # The second-order gradient and a recomputed cell draw the same random numbers twice, which no CUDA graph can.
        eager = settings.unrolled or settings.checkpoint
        alternate = step if eager else GraphedStep(step, data.train.labels.device, run.screen.say)

        learners: dict[str, Stateful] = {"supernet": supernet, "architecture": architecture, "sgd": sgd, "adam": adam}
        learners["penalty"] = penalty
        what = f"stage {stage + 1}/{len(stages)}"
        for epoch in run.epochs(what, settings.epochs, halves.steps, learners, carries=["architecture", "penalty"]):
            lr = cosine(epoch, settings.epochs, settings.lr, settings.lr_min)
            set_lr(sgd, lr)
            supernet.dropout.rate = skip_dropout(epoch, settings.epochs, settings.warmup_epochs, dropout_rate)
            supernet.train()

            for train_batch, search_batch in run.batches(halves):
                run.meter.add_all(alternate(*train_batch, *search_batch, epoch >= settings.warmup_epochs))

            # Costs: the mean over the genotypes of the mixture, and the genotype that would be derived now without budgets.
            realised = table.exact(discretize(space, mixing_weights(architecture), cap))
            run.log(shown(limits), lr=lr, **cost_facts(architecture, penalty, realised, run))
            if epoch >= settings.warmup_epochs:
                penalty.ascend(realised)
            run.picture("alpha", heat_map(architecture().joint))
        mixing = mixing_weights(architecture)

    run.write(RunFile.ALPHAS, alphas_to_json(space, table.skeleton, architecture))
    count = BEST if limits or settings.rule == "exact" else 1
    derivation = derive(space, mixing, table, settings.rule, settings.max_skips, provenance, limits, count)
    run.write_json(RunFile.CANDIDATES, derivation.candidates_json())
    run.write(RunFile.GENOTYPE, derivation.genotype.to_json())
    return derivation


def alternation(
    settings: SearchConfig,
    supernet: Supernet | BatchedSupernet,
    architecture: Architecture,
    sgd: torch.optim.Optimizer,
    adam: torch.optim.Optimizer,
    penalty: Penalty,
) -> Callable[[Tensor, Tensor, Tensor, Tensor, bool], dict[str, Sum]]:
    """Return one step of the search: alpha on a batch of the search half (after the warm-up), weights on one of the training half.

    The step returns sums for the epoch's record. It does not synchronise with the device.
    """
    weights = [weight for weight in supernet.parameters() if weight.requires_grad]
    alpha = list(architecture.parameters())

    def step(
        images: Tensor, labels: Tensor, search_images: Tensor, search_labels: Tensor, warm: bool
    ) -> dict[str, Sum]:
        facts: dict[str, Sum] = {}
        task: Sequence[Tensor]
        # Architecture: the gradient of the loss on the search half, and that of the price.
        if warm:
            if settings.unrolled:
                loss, task = second_order(supernet, architecture, sgd, (images, labels), (search_images, search_labels))
                facts["search_loss"] = loss * len(search_labels), len(search_labels)
            else:
                with frozen(supernet), autocast(settings.amp, images):
                    logits = supernet(search_images, architecture())
                    loss = cross_entropy(logits, search_labels)
                task = torch.autograd.grad(loss, alpha)
                facts |= observed("search", loss, logits, search_labels)
            price = torch.autograd.grad(penalty(architecture()), alpha)
            facts["task_gradient"], facts["price_gradient"] = (norm(task), 1), (norm(price), 1)
            optimizer_step(adam, alpha, [t + p for t, p in zip(task, price, strict=True)], settings.alpha_clip)

        # Weights: one step on the training half.
        with autocast(settings.amp, images):
            logits = supernet(images, architecture().detach())
            loss = cross_entropy(logits, labels)
        optimizer_step(sgd, weights, torch.autograd.grad(loss, weights, allow_unused=True), settings.clip)
        return facts | observed("train", loss, logits, labels)

    return step


def second_order(
    supernet: Supernet | BatchedSupernet,
    architecture: Architecture,
    sgd: torch.optim.Optimizer,
    train_batch: Batch,
    search_batch: Batch,
) -> tuple[Tensor, list[Tensor]]:
    """Return the loss on the search half after a virtual step of the weights on the training half, and its gradient for alpha."""

    def loss_on(batch: Batch, weights: Any) -> Tensor:
        images, labels = batch
        return cross_entropy(functional_call(supernet, dict(weights), (images, architecture())), labels)

    # Parameters that are not trained take no virtual step either.
    named = {name: weight for name, weight in supernet.named_parameters() if weight.requires_grad}
    group = sgd.param_groups[0]
    velocity = {name: sgd.state[w]["momentum_buffer"] for name, w in named.items() if "momentum_buffer" in sgd.state[w]}
    return unrolled_gradient(
        lambda weights: loss_on(train_batch, weights),
        lambda weights: loss_on(search_batch, weights),
        named,
        list(architecture.parameters()),
        group["lr"],
        group["momentum"],
        group["weight_decay"],
        velocity,
    )


def build_stage(
    config: Experiment, space: SearchSpace, data: DataSet, layers: int, stage: int
) -> tuple[Supernet | BatchedSupernet, Architecture, torch.optim.Optimizer, torch.optim.Optimizer]:
    """Return a stage's supernet, architecture and their optimisers, initialised as a function of (seed, stage)."""
    settings = config.search
    device = data.train.labels.device
    torch.manual_seed(key(config.seed, "initial weights", stage))
    skeleton = skeletons.of_supernet(config, data, layers)
    plain = Supernet(space, skeleton, settings.partial_channels)
    supernet = to_device(plain if settings.supernet == "plain" else BatchedSupernet(plain), device)
    supernet.checkpoint = settings.checkpoint
    architecture = Architecture(space, settings.alpha_init, settings.partial_channels > 1).to(device)
    sgd = sgd_for(supernet, settings.lr, settings.momentum, settings.weight_decay)
    adam = torch.optim.Adam(
        architecture.named_parameters(),
        settings.alpha_lr,
        (settings.alpha_beta1, settings.alpha_beta2),
        weight_decay=settings.alpha_weight_decay,
        fused=True,
        capturable=True,
    )
    return supernet, architecture, sgd, adam


def priced(config: Experiment, space: SearchSpace, data: DataSet) -> PriceTable:
    """Return the prices at the deployment skeleton, whose width is found where it is `auto`.

    Raises InputError, before anything is built, where no genotype meets the budgets there, or a price is not available.
    """
    settings, asked, device = config.search, config.skeleton, data.train.labels.device
    width = replace(asked, channels=asked.channels or 2)
    skeleton = skeletons.of_experiment(width, data.image, data.classes)
    if asked.channels == 0:
        skeleton = replace(skeleton, channels=widest(settings, space, skeleton))
    table = prices(settings, space, skeleton, device)
    check_budgets(settings, table)
    Penalty(table, asdict(settings.cost))  # raises InputError for a price on peak memory where there is no model of it
    return table


def check_stages(settings: SearchConfig, space: SearchSpace) -> None:
    """Raise InputError where the stages do not fit the space."""
    for layers in settings.layers:
        Skeleton(layers, settings.channels, (3, 32, 32), 10).cells(space)  # on any images
    if settings.unrolled and settings.amp != "none":
        raise InputError("search.unrolled=true takes differences that bfloat16 cannot tell; add search.amp=none.")
    left = len(space.primitives)
    if settings.candidates[0] not in (0, left):
        raise InputError(
            f"search.candidates={settings.candidates}: the first stage keeps all {left} primitives; write 0 for it."
        )
    for keep in settings.candidates[1:]:
        if keep > left:
            raise InputError(
                f"search.candidates={settings.candidates} keeps {keep} where {left} primitives are left; give {left} or fewer there."
            )
        left = keep
    derivable = [name for name, can in zip(space.primitives, space.choosable, strict=True) if can]
    if settings.rule != "darts" and derivable == [SKIP]:
        raise InputError(
            "search.primitives has nothing but skips to derive, which search.max_skips caps; add one or take rule=darts."
        )


@dataclass(frozen=True)
class SearchBatches:
    """Pairs of batches, one of the training half and one of the search half.

    The search half follows its own epochs: when it ends before the training half, its next epoch begins.
    """

    train: Batches
    search: Batches

    @classmethod
    def of(cls, data: DataSet, config: Experiment) -> SearchBatches:
        """Split the training set, classes balanced. Raises InputError if a batch is larger than its half."""
        settings, seed = config.search, config.seed
        augment = Augment(data.mean, data.std, config.data.crop, config.data.flip, cutout=0)
        labels, used = data.train.labels.cpu(), torch.arange(len(data.train))
        if settings.subset < 1:
            used, _ = split(labels, settings.subset, seed, "subset")
        first, second = (used[part] for part in split(labels[used], settings.weight_fraction, seed, "halves"))
        train = Batches(data.train, first, settings.batch, seed, "weights", augment, "search.batch")
        return cls(train, Batches(data.train, second, settings.batch, seed, "architecture", augment, "search.batch"))

    @property
    def steps(self) -> int:
        return self.train.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Batch]]:
        return zip(self.train.epoch(epoch, start), self._search_batches(epoch * self.steps + start), strict=False)

    def _search_batches(self, step: int) -> Iterator[Batch]:
        while True:
            epoch, start = divmod(step, self.search.steps)
            for batch in self.search.epoch(epoch, start):
                yield batch
                step += 1


def observed(half: str, loss: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Sum]:
    """Return loss and accuracy of a batch of one half, as sums over its images."""
    correct = (logits.argmax(1) == labels).sum()
    return {f"{half}_loss": (loss.detach() * len(labels), len(labels)), f"{half}_accuracy": (correct, len(labels))}


def norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the joint Euclidean norm."""
    return torch.stack([gradient.norm() for gradient in gradients]).norm()
