"""The search: alternating training of weights and architecture, with a deeper supernet and fewer candidates in each later stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from rapdarts.architecture.space import SKIP, SearchSpace, Skeleton
from rapdarts.config.experiment import Experiment, SearchConfig
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.latency import LatencyTable
from rapdarts.cost.penalty import Penalty, uniform_mixing
from rapdarts.cost.prices import prices
from rapdarts.data.dataset import DataSet
from rapdarts.data.randomness import key
from rapdarts.deploy import skeletons
from rapdarts.errors import InputError, plural
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import during
from rapdarts.loops.curvature import curvature, plain_copy
from rapdarts.loops.search_batches import Batch, SearchBatches
from rapdarts.loops.search_record import certainty, cost_facts, heat_map, norm, observed, shown
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.batched.verified import kernels_for
from rapdarts.networks.layers import remarks_on_pools
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.alphas import alphas_to_json
from rapdarts.strategy.bilevel import unrolled_gradient
from rapdarts.strategy.budgets import budgets_on, check_budgets, spent, widest
from rapdarts.strategy.derive import Derivation, derive_jointly
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.early_stop import EarlyStop
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.relaxation import Architecture, mixing_weights
from rapdarts.strategy.relaxations import check_relaxation, relaxation_of
from rapdarts.strategy.replicas import mean_weights, replica_seeds
from rapdarts.strategy.rule import Rule, rule_of
from rapdarts.training.class_weights import class_weights, mean_loss
from rapdarts.training.cuda_graph import GraphedStep
from rapdarts.training.guard import Guard
from rapdarts.training.meter import Sum
from rapdarts.training.optimizer import autocast, frozen, optimizer_step, set_lr, sgd_for, to_device
from rapdarts.training.run import Run, Stateful
from rapdarts.training.schedules import cosine, skip_dropout

Built = tuple[Supernet | BatchedSupernet, Architecture, torch.optim.Optimizer, torch.optim.Optimizer]
"""The supernet and the architecture of a stage, and their optimisers."""

UPDATES = ("alphas", "weights")
"""The kinds of updates in a step of the search."""

BEST = 5
"""Number of best genotypes that a search with the rule `exact` writes to candidates.json."""


def search(
    config: Experiment, space: SearchSpace, data: DataSet, run: Run, table: PriceTable, provenance: dict[str, Any]
) -> Derivation:
    """Train weights and architecture alternately, with deeper supernets and fewer candidates in later stages (Chen et al. 2019).

    With several replicas, each stage trains them one after the other; the mean of their mixing weights decides which
    candidates are dropped and which genotype is derived. `table` holds the prices at the deployment skeleton (see `priced`).
    Writes alphas.json, candidates.json and genotype.json into the run folder. Raises DivergedError if a loss, weight or alpha
    stops being finite, and Preempted if a signal stops the run.
    """
    settings, rule = config.search, rule_of(config.search, space)
    budgets = budgets_on(table, rule.limits)
    seeds = replica_seeds(config.seed, settings.replicas)
    replicas = [
        Replica.of(replace(config, seed=seed), number if len(seeds) > 1 else 0, data, table, rule)
        for number, seed in enumerate(seeds, 1)
    ]
    stages = zip(settings.layers, settings.candidates, settings.skip_dropout, strict=True)
    weights = [uniform_mixing(space.mask).weights.numpy()]

    for number, (layers, keep, dropout_rate) in enumerate(stages):
        # Drop the weakest candidates of the previous stage; each replica then builds a new supernet and new optimisers.
        mean = mean_weights(weights)
        within, _ = spent(space, mean, budgets, rule)
        space = prune(space, mean, keep or len(space.primitives), within, rule.max_skips)
        stage = Stage(number, space, layers, dropout_rate)
        architectures = [learn(replica, stage, data, run, table, rule) for replica in replicas]
        weights = [mixing_weights(architecture) for architecture in architectures]

    run.write(RunFile.ALPHAS, alphas_to_json(space, table.skeleton, architectures))
    count = BEST if rule.exact else 1
    derivation = derive_jointly(space, weights, table, rule, provenance, count, settings.epochs)
    run.write_json(RunFile.CANDIDATES, derivation.candidates_json())
    run.write(RunFile.GENOTYPE, derivation.genotype.to_json())
    return derivation


def learn(replica: Replica, stage: Stage, data: DataSet, run: Run, table: PriceTable, rule: Rule) -> Architecture:
    """Train a new supernet and a new architecture alternately for one stage; return the architecture."""
    config, settings, penalty, space = replica.config, replica.config.search, replica.penalty, stage.space
    built = supernet, architecture, sgd, adam = build_stage(config, space, data, stage.layers, stage.number)
    for remark in remarks_on_pools(supernet, data.train.labels.device):
        run.screen.say(remark)
    initial, guard = architecture.alpha.detach().clone(), Guard(supernet, UPDATES)
    alternate, balance = step_of_stage(replica, built, data, run, guard)

    learners: dict[str, Stateful] = {"supernet": supernet, "architecture": architecture, "sgd": sgd, "adam": adam}
    learners |= {"penalty": penalty, "guard": guard}
    stop = EarlyStop(settings.relax.stop_ratio, settings.relax.stop_window)
    if stop.ratio:
        learners["stop"] = stop
    carries, stream = ["architecture", "penalty"], (config.seed, stage.number)
    what, halves = (
        f"stage {stage.number + 1}/{len(settings.layers)}{replica.words}",
        replica.halves.of_stage(stage.number),
    )
    for epoch in run.epochs(what, settings.epochs, halves.steps, learners, carries, stream, lambda: stop.stopped):
        architecture.relaxation.begin(epoch / max(1, settings.epochs - 1))
        lr = cosine(epoch, settings.epochs, settings.lr, settings.lr_min)
        set_lr(sgd, lr)
        rate = skip_dropout(epoch, settings.epochs, settings.warmup_epochs, stage.dropout_rate)
        supernet.dropout.rate = rate
        supernet.train()

        for train_batch, search_batch in run.batches(halves):
            run.meter.add_all(alternate(*train_batch, *search_batch, epoch >= settings.warmup_epochs))

        curve: dict[str, float] = {}
        if stop.ratio and epoch >= settings.warmup_epochs:
            plain = plain_copy(
                supernet, space, skeletons.of_supernet(config, data, stage.layers), settings.partial_channels
            )
            curve["eigenvalue"] = curvature(plain, architecture, next(halves.epoch(epoch))[1], balance, run.pause)
            if stop.observe(curve["eigenvalue"], architecture):
                ago = plural(stop.window, "epoch")
                run.screen.say(f"{what} stops early, because the curvature rose; alpha is restored from {ago} earlier")

        # Record the expected costs of the mixture, and the costs of the genotype that would be derived now without budgets.
        realised = table.exact(discretize(space, mixing_weights(architecture), rule.max_skips))
        facts = (
            cost_facts(architecture, penalty, realised, run)
            | certainty(space, architecture, initial)
            | replica.facts
            | curve
        )
        run.log(shown(rule.limits), lr=lr, skip_dropout=rate, **facts)
        if epoch >= settings.warmup_epochs:
            penalty.adjust(realised)
        run.picture(f"alpha{replica.words}", heat_map(architecture.expected().joint))
    return architecture


@dataclass(frozen=True)
class Stage:
    """A stage of the search: its number, remaining candidates, number of cells in the supernet, and initial skip dropout rate."""

    number: int
    space: SearchSpace
    layers: int
    dropout_rate: float


@dataclass(frozen=True)
class Replica:
    """A replica of the search, with its own seed (in `config`), batches and multipliers.

    `number` counts from 1; it is 0 if there is only one replica.
    """

    config: Experiment
    number: int
    halves: SearchBatches
    penalty: Penalty

    @classmethod
    def of(cls, config: Experiment, number: int, data: DataSet, table: PriceTable, rule: Rule) -> Replica:
        """Return the replica for the seed of an experiment. Raises the errors of `SearchBatches.of`."""
        settings, device = config.search, data.train.labels.device
        penalty = Penalty(table, asdict(settings.cost), rule.limits, settings.budget_rate, device)
        return cls(config, number, SearchBatches.of(data, config), penalty)

    @property
    def words(self) -> str:
        """Name of the replica in progress lines."""
        return f", replica {self.number}/{self.config.search.replicas}" if self.number else ""

    @property
    def facts(self) -> dict[str, float]:
        """Values that identify the replica in metrics.jsonl."""
        return {"replica": self.number} if self.number else {}


def step_of_stage(
    replica: Replica, built: Built, data: DataSet, run: Run, guard: Guard | None = None
) -> tuple[Callable[..., dict[str, Sum]], Tensor | None]:
    """Return the function that takes one step of a stage, and the weights of the classes (classes,) in its losses, if any.

    The function is that of `alternation`; on a GPU, it is captured as a CUDA graph if possible.
    """
    settings, labels = replica.config.search, data.train.labels
    balance = class_weights(settings.class_weights, labels, data.classes)
    guard = guard or Guard(built[0], UPDATES)
    step = alternation(settings, *built, replica.penalty, balance, guard)
    # The second-order gradient and recomputed cells draw the same random numbers twice, which a CUDA graph cannot do.
    eager = settings.unrolled or settings.checkpoint
    return step if eager else GraphedStep(step, labels.device, run.screen.say, (*built, guard)), balance


def alternation(
    settings: SearchConfig,
    supernet: Supernet | BatchedSupernet,
    architecture: Architecture,
    sgd: torch.optim.Optimizer,
    adam: torch.optim.Optimizer,
    penalty: Penalty,
    balance: Tensor | None = None,
    guard: Guard | None = None,
) -> Callable[[Tensor, Tensor, Tensor, Tensor, bool], dict[str, Sum]]:
    """Return a function that takes one step of the search; `balance` holds the weights of the classes (classes,), if any.

    The function takes images (n, c, h, w) and labels (n,) of the training half, images and labels of the search half, and a
    flag that is False during the warm-up. If the flag is set, it updates alpha on the search half; it then updates the weights on
    the training half. It returns sums for the record of the epoch, and does not synchronise with the device. An update that the
    `guard` (default: a new one) rejects is skipped.
    """
    guard = guard or Guard(supernet, UPDATES)
    weights = [weight for weight in supernet.parameters() if weight.requires_grad]
    alpha = list(architecture.parameters())

    def step(
        images: Tensor, labels: Tensor, search_images: Tensor, search_labels: Tensor, warm: bool
    ) -> dict[str, Sum]:
        facts: dict[str, Sum] = {}
        task: Sequence[Tensor]
        # Architecture: one step with the gradients of the loss on the search half and of the price.
        if warm:
            guard.begin()
            if settings.unrolled:
                batches = (images, labels), (search_images, search_labels)
                loss, task = second_order(supernet, architecture, sgd, *batches, balance)
                facts["search_loss"] = loss * len(search_labels), len(search_labels)
            else:
                with frozen(supernet), autocast(settings.amp, images):
                    logits = supernet(search_images, architecture())
                    loss = mean_loss(logits, search_labels, balance)
                task = torch.autograd.grad(loss, alpha)
                facts |= observed("search", loss, logits, search_labels)
            cost = penalty(architecture.expected())
            price = torch.autograd.grad(cost, alpha)
            facts["task_gradient"], facts["price_gradient"] = (norm(task), 1), (norm(price), 1)
            slopes = architecture.regularized([t + p for t, p in zip(task, price, strict=True)])
            verdict = guard.check("alphas", slopes, loss, cost)
            optimizer_step(adam, alpha, slopes, settings.alpha_clip, verdict)
            facts = verdict.sums(facts)

        # Weights: one step on the training half.
        guard.begin()
        with autocast(settings.amp, images):
            logits = supernet(images, architecture().detach())
            loss = mean_loss(logits, labels, balance)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        verdict = guard.check("weights", gradients, loss)
        optimizer_step(sgd, weights, gradients, settings.clip, verdict)
        return facts | verdict.sums(observed("train", loss, logits, labels))

    return step


def second_order(
    supernet: Supernet | BatchedSupernet,
    architecture: Architecture,
    sgd: torch.optim.Optimizer,
    train_batch: Batch,
    search_batch: Batch,
    balance: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return the loss on the search half after a virtual step of the weights on the training half, and its gradients.

    A batch consists of images (n, c, h, w) and labels (n,). The loss is a scalar. The gradients with
    respect to the architecture's parameters have the shapes of these parameters.
    """

    def loss_on(batch: Batch, weights: Any) -> Tensor:
        images, labels = batch
        return mean_loss(functional_call(supernet, dict(weights), (images, architecture())), labels, balance)

    # The virtual step moves only the parameters that are trained.
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


def build_stage(config: Experiment, space: SearchSpace, data: DataSet, layers: int, stage: int) -> Built:
    """Return the supernet and architecture of a stage, initialised from the seed and the stage, and their optimisers."""
    settings = config.search
    device = data.train.labels.device
    torch.manual_seed(key(config.seed, "initial weights", stage))
    skeleton = skeletons.of_supernet(config, data, layers)
    plain = Supernet(space, skeleton, settings.partial_channels)
    kernels = kernels_for(settings, device).families
    supernet = to_device(plain if settings.supernet == "plain" else BatchedSupernet(plain, kernels), device)
    supernet.checkpoint = settings.checkpoint
    relaxation = relaxation_of(settings, space)
    architecture = Architecture(space, settings.alpha_init, settings.partial_channels > 1, relaxation).to(device)
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


@during("counting the costs of the search space")
def priced(config: Experiment, space: SearchSpace, data: DataSet, latency: LatencyTable | None = None) -> PriceTable:
    """Return the prices at the deployment skeleton; with `skeleton.channels=auto`, also choose its width.

    `latency` is a table measured for this search, for settings that need a table but do not name one.
    Raises InputError, before a supernet is built, if no genotype meets the budgets, or if a price is not available.
    """
    settings, asked, device = config.search, config.skeleton, data.train.labels.device
    width = replace(asked, channels=asked.channels or 2)
    skeleton = skeletons.of_experiment(width, data.image, data.classes)
    if asked.channels == 0:
        skeleton = replace(skeleton, channels=widest(settings, space, skeleton))
    table = prices(settings, space, skeleton, device, latency)
    check_budgets(settings, table)
    Penalty(table, asdict(settings.cost))  # raises InputError for a price on peak memory if there is no model of it
    return table


def check_stages(settings: SearchConfig, space: SearchSpace) -> None:
    """Raise InputError if the stages, or the relaxation, do not fit the space."""
    for layers in settings.layers:
        Skeleton(layers, settings.channels, (3, 32, 32), 10).cells(space)  # raises for too few layers, for any image
    if settings.unrolled and settings.amp != "none":
        raise InputError(
            "search.unrolled=true computes differences that are too small for bfloat16; set search.amp=none."
        )
    check_relaxation(settings, space)
    left = len(space.primitives)
    if settings.candidates[0] not in (0, left):
        raise InputError(
            f"search.candidates={settings.candidates}: the first stage keeps all {left} primitives; set the first entry to 0."
        )
    for keep in settings.candidates[1:]:
        if keep > left:
            raise InputError(
                f"search.candidates={settings.candidates} keeps {keep} primitives in a stage with only {left} left; set"
                f" this entry to {left} or less."
            )
        left = keep
    derivable = [name for name, can in zip(space.primitives, space.choosable, strict=True) if can]
    if rule_of(settings, space).max_skips is not None and derivable == [SKIP]:
        raise InputError(
            "search.primitives allows only skips to be derived, but search.max_skips limits them; add a primitive or set"
            " rule=darts."
        )
