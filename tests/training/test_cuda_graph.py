"""A step captured as a CUDA graph matches the eager step; a fake graph replays torch's operations on the CPU."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from rapdarts.architecture.space import Skeleton
from rapdarts.cli.main import main
from rapdarts.config.experiment import SearchConfig
from rapdarts.cost.expected import price_table
from rapdarts.cost.penalty import Penalty
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops import retrain as retraining
from rapdarts.loops.search import alternation
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training import guard
from rapdarts.training.cuda_graph import EAGER, WAITED, GraphedStep
from rapdarts.training.guard import Guard, Verdict
from rapdarts.training.optimizer import optimizer_step, set_lr, sgd_for
from rapdarts.training.step_state import StepState, difference
from tests import spaces

GPU, CPU = torch.device("cuda"), torch.device("cpu")


class Tape(TorchDispatchMode):
    """Mode that records every operation with the tensors that it read and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.calls.append(tree_map(_alias, (func, args, kwargs or {}, result)))
        return result


def _alias(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


class Replayed:
    """Fake of torch.cuda.CUDAGraph that runs the captured operations again on the same memory.

    Unlike a GPU, it has also run them during the capture; restoring the state before the first replay undoes this.
    """

    def __init__(self) -> None:
        self.tape, self.replays = Tape(), 0

    def pool(self) -> int:
        return 7

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, result in self.tape.calls:
            with torch.no_grad():
                again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Stream:
    def __init__(self, device: Any = None) -> None: ...

    def wait_stream(self, other: Any) -> None: ...


class Watch:
    """Fake of torch's debug mode that warns of operations that synchronise with a device."""

    def __init__(self) -> None:
        self.mode: int | str = 0

    def set(self, mode: int | str) -> None:
        self.mode = mode
        if mode:  # torch gives this warning once
            warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)

    def wait(self, value: Tensor) -> float:
        if self.mode == "warn":
            warnings.warn(f"{WAITED} (Triggered internally at CUDAFunctions.cpp:129.)", stacklevel=2)
        return value.item()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", watch.set)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: watch.mode)
    return watch


@pytest.fixture
def graphs(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    made: list[Replayed] = []

    def new() -> Replayed:
        made.append(Replayed())
        return made[-1]

    @contextmanager
    def capture(graph: Replayed, pool: Any, stream: Any) -> Iterator[None]:
        assert pool == (7 if len(made) > 1 else None)  # all graphs share one pool
        with graph.tape:
            yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return made


def test_on_a_cpu_the_step_always_runs_eagerly() -> None:
    graphed = GraphedStep(lambda x, sign: sign * x.sum(), torch.device("cpu"))
    assert [graphed(torch.ones(n), -1).item() for n in range(10)] == [-n for n in range(10)]


def test_each_combination_of_shapes_and_settings_has_its_own_graph(graphs: list[Replayed]) -> None:
    called = []

    def step(x: Tensor, doubled: bool) -> dict[str, tuple[Tensor, int]]:
        called.append(doubled)
        return {"sum": (x.sum() * (2 if doubled else 1), len(x))}

    graphed = GraphedStep(step, GPU)
    for doubled in (False, True):
        for n in (3, 4):
            for value in range(7):
                total, count = graphed(torch.full((n,), float(value)), doubled)["sum"]
                assert (total.item(), count) == (n * value * (2 if doubled else 1), n)
    assert len(graphs) == 4
    assert [graph.replays for graph in graphs] == [7 - EAGER] * 4
    assert len(called) == 4 * (EAGER + 2)  # the step before a capture is also taken eagerly, for the comparison


def alternations(
    wrap: Callable[[Any, tuple[Any, ...]], Any], amp: str = "none", bad: Sequence[int] = ()
) -> list[Tensor]:
    """Run 16 steps of a small search while its learning rate, dropout, warm-up and multiplier change; return all sums and state.

    In the `bad` steps, a pixel of each half is NaN.
    """
    torch.manual_seed(0)
    space = named_space("darts").only(["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"])
    settings = replace(SearchConfig(), amp=amp)
    table = price_table(space, Skeleton(5, 4, (1, 8, 8), 3))
    penalty = Penalty(table, {**asdict(settings.cost), "macs": 0.5}, {"params": 1000.0})
    supernet = BatchedSupernet(Supernet(space, Skeleton(3, 4, (1, 8, 8), 3)))
    architecture = Architecture(space)
    sgd = sgd_for(supernet, 0.1, 0.9, 3e-4)
    adam = torch.optim.Adam(architecture.named_parameters(), 6e-2, (0.5, 0.999), fused=True, capturable=True)
    images, labels = torch.randn(10, 2, 6, 1, 8, 8), torch.randint(3, (10, 2, 6))
    built = supernet, architecture, sgd, adam
    step = wrap(alternation(settings, *built, penalty), built)
    sums = []
    for at in range(16):
        set_lr(sgd, 0.1 / (1 + at))
        supernet.dropout.rate = 0.5 - at / 64
        penalty.adjust({"params": 1000.0 + 200 * at})
        torch.manual_seed(at)
        size = 5 if at == 9 else 6  # the last batch of an epoch may be smaller
        i = at % 10
        if at in bad:
            images[i, :, 0, 0, 0, 0] = torch.nan
        facts = step(images[i, 0, :size], labels[i, 0, :size], images[i, 1], labels[i, 1], at >= 4)
        sums += [total.double().clone() for total, _ in facts.values()]
    momenta = [state["momentum_buffer"] for state in sgd.state.values()]
    return [*sums, *supernet.state_dict().values(), *architecture.state_dict().values(), *momenta]


def test_a_replayed_step_skips_a_bad_update(graphs: list[Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph itself decides which updates to keep; replayed and plain steps skip the same ones."""
    monkeypatch.setattr(guard, "READABLE", ())  # as on a GPU
    plain, replayed = (
        alternations(wrap, bad=[12, 14])
        for wrap in (lambda step, built: step, lambda step, built: GraphedStep(step, GPU, learners=built))
    )
    assert sum(graph.replays for graph in graphs) > 8
    assert all(bool(value.isfinite().all()) for value in plain)
    assert all(torch.equal(first, second) for first, second in zip(plain, replayed, strict=True))
    assert any(
        not torch.equal(first, second)
        for first, second in zip(plain, alternations(lambda step, built: step), strict=True)
    )


@pytest.mark.parametrize("amp", ["none", pytest.param("bf16", marks=pytest.mark.proof)])
def test_a_replayed_search_is_bit_identical(graphs: list[Replayed], amp: str) -> None:
    expected = alternations(lambda step, built: step, amp)
    found = alternations(lambda step, built: GraphedStep(step, GPU, learners=built), amp)
    # Four steps train only the weights, and the rest also train alpha, so there are two graphs. The smaller batch runs eagerly.
    assert [graph.replays for graph in graphs] == [1, 16 - 4 - 1 - EAGER]
    assert len(found) == len(expected)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_that_synchronises_with_a_gpu_does_not_break_random_numbers() -> None:
    said: list[str] = []
    graphed = GraphedStep(lambda x: x + x.sum().item() + torch.empty_like(x).uniform_(), GPU, said.append)
    for _ in range(EAGER + 2):
        graphed(torch.ones(3, device=GPU))
    assert len(said) == 1 and said[0].endswith("synchronises with the device")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_search_captured_on_a_gpu_is_bit_identical(amp: str) -> None:
    with torch.device("cuda"):
        expected = alternations(lambda step, built: step, amp)
        found = alternations(lambda step, built: GraphedStep(step, GPU, learners=built), amp)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_step_that_cannot_be_captured_stays_eager(graphs: list[Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refuse(*given: Any, **named: Any) -> Iterator[None]:
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    said: list[str] = []
    graphed = GraphedStep(lambda x: x.sum(), GPU, said.append)
    assert [graphed(torch.ones(3) * n).item() for n in range(9)] == [3 * n for n in range(9)]
    assert len(said) == 1 and said[0].endswith("operation not permitted when stream is capturing")


def test_a_step_that_synchronises_is_never_captured(graphs: list[Replayed], watch: Watch) -> None:
    """Each call takes exactly one step, and other warnings still reach the user."""
    taken: list[float] = []

    def step(x: Tensor, asks: bool) -> Tensor:
        taken.append(watch.wait(x.sum()) if asks else 0)
        warnings.warn("a warning from the user's code", stacklevel=1)
        return x.sum()

    said: list[str] = []
    graphed = GraphedStep(step, GPU, said.append)
    with pytest.warns(UserWarning, match="a warning from the user's code") as caught:
        assert [graphed(torch.ones(3) * n, False).item() for n in range(6)] == [3 * n for n in range(6)]
        assert len(graphs) == 1 and said == []
        assert [graphed(torch.ones(3) * n, True).item() for n in range(6)] == [3 * n for n in range(6)]
    assert taken[EAGER + 2 :] == [3 * n for n in range(6)]
    assert not any(WAITED in str(warning.message) for warning in caught)
    assert len(graphs) == 1 and graphed.graphs == {}
    assert said == ["training steps run eagerly instead of as CUDA graphs: an operation synchronises with the device"]
    assert watch.mode == 0


def waits(narrow: bool, name: str) -> Callable[[], Any]:
    """Return an alternation on the CPU with a price on MACs and, for cells with two inputs, on peak memory."""
    space = named_space(name)
    table = price_table(space, Skeleton(5, 4, (1, 8, 8), 3))
    if narrow:
        mask = torch.rand(space.mask.shape, generator=torch.Generator().manual_seed(0)) < 0.6
        mask[..., -1] = True
        space = space.narrowed(mask.numpy())
    supernet = BatchedSupernet(Supernet(space, Skeleton(3, 4, (1, 8, 8), 3)))
    supernet.dropout.rate = 0.5
    architecture = Architecture(space)
    peak = {"peak_memory": 0.1} if space.inputs == 2 else {}
    penalty = Penalty(table, {**asdict(SearchConfig().cost), "macs": 0.5, **peak})
    sgd = torch.optim.SGD(supernet.parameters(), 0.1, 0.9, fused=True)
    adam = torch.optim.Adam(architecture.parameters(), 0.1, capturable=True, fused=True)
    step = alternation(SearchConfig(), supernet, architecture, sgd, adam, penalty)
    images, labels = torch.randn(2, 1, 8, 8), torch.tensor([0, 2])
    return lambda: step(images, labels, images, labels, True)


@pytest.mark.parametrize("narrow", [False, True], ids=["whole", "narrowed"])
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_no_nested_operation_synchronises(name: str, narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiler also records nested operations: none of them reads a value back or copies a tensor from the host."""
    monkeypatch.setattr(guard, "READABLE", ())  # as on a GPU
    step = waits(narrow, name)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    ours = [
        event.name
        for event in profile.events()
        if event.name in ("aten::item", "aten::nonzero", "aten::lift_fresh")
        and not str(event.cpu_parent and event.cpu_parent.name).startswith("aten::_fused_adam")
    ]
    assert ours == []


class OnTheDevice(TorchDispatchMode):
    """Mode that rejects every operation that synchronises with the device or copies to it. Scalar tensors on the host are allowed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        elsewhere = [value for value in tensors if value.device.type != "meta" and value.dim() > 0]
        assert not elsewhere, f"{func} reads {elsewhere} from the host"
        result = func(*args, **(kwargs or {}))
        tree_map(lambda y: self.check(func, tensors, y), result)
        return result

    @staticmethod
    def check(func: Any, tensors: list[Tensor], y: Any) -> None:
        moved = isinstance(y, Tensor) and y.device.type != "meta" and any(x.device.type == "meta" for x in tensors)
        assert not moved, f"the result of {func} leaves the device"


# Torch has no fused optimisers for the meta device, and the others do not accept a verdict.
IGNORED = property(lambda optimizer: None, lambda optimizer, value: None, lambda optimizer: None)
UnfusedSGD, UnfusedAdam = (
    type("Unfused", (kind,), {"found_inf": IGNORED}) for kind in (torch.optim.SGD, torch.optim.Adam)
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "darts" else [pytest.mark.proof]) for name in spaces.NAMES]
)
def test_a_search_step_does_not_synchronise(name: str) -> None:
    """The step runs on the meta device, which has no values to read back, and uses no tensors of the host except scalars."""
    space = named_space(name)
    settings = SearchConfig()
    table = price_table(space, Skeleton(5, 4, (1, 8, 8), 3))
    with torch.device("meta"):
        supernet: nn.Module = BatchedSupernet(Supernet(space, Skeleton(3, 4, (1, 8, 8), 3)))
        architecture = Architecture(space)
    architecture.mask = torch.as_tensor(space.mask).to("meta")
    supernet.dropout.rate = 0.5  # type: ignore[union-attr, assignment]
    peak = 0.1 if "pool" in "".join(space.primitives) and space.inputs == 2 else 0.0
    penalty = Penalty(table, {**asdict(settings.cost), "macs": 0.5, "peak_memory": peak}, device="meta")
    sgd, adam = UnfusedSGD(supernet.parameters(), 0.1, 0.9), UnfusedAdam(architecture.parameters(), 0.1)
    step = alternation(settings, supernet, architecture, sgd, adam, penalty)  # type: ignore[arg-type]
    images, labels = torch.empty(2, 1, 8, 8, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    for optimizer, learner in ((sgd, supernet), (adam, architecture)):  # the first step creates their state
        weights = list(learner.parameters())
        gradients, kept = [torch.zeros_like(weight) for weight in weights], torch.ones((), device="meta") > 0
        optimizer_step(optimizer, weights, gradients, 0, Verdict(kept, kept))
    with OnTheDevice():
        step(images, labels, images, labels, True)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param([], marks=pytest.mark.proof),
        ["retrain.amp=bf16", "retrain.ema=0.9", "retrain.nesterov=true", "accumulate=2"],
    ],
)
def test_a_replayed_retraining_is_bit_identical(
    graphs: list[Replayed], recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learning rate falls and the drop path rate rises during training."""
    tiny = ["threads=1", "data.fraction=0.3", "skeleton.layers=3", "skeleton.channels=4", "epochs=3", "batch=30"]
    command = ["retrain", "PDARTS", "digits", *tiny, "retrain.drop_path=0.4", "auxiliary=0.4", *recipe]
    assert main([*command, f"run={tmp_path / 'plain'}"]) == 0
    monkeypatch.setattr(
        retraining, "GraphedStep", lambda step, device, say, learners: GraphedStep(step, GPU, say, learners)
    )
    assert main([*command, f"run={tmp_path / 'graphed'}"]) == 0
    assert graphs and all(graph.replays > 5 for graph in graphs[:1])
    plain, graphed = (tmp_path / name for name in ("plain", "graphed"))
    assert (plain / "network.safetensors").read_bytes() == (graphed / "network.safetensors").read_bytes()
    records = [json.loads(line) for run in (plain, graphed) for line in (run / "metrics.jsonl").open()]
    assert [record["train_loss"] for record in records[:3]] == [record["train_loss"] for record in records[3:]]


def test_a_retraining_step_does_not_synchronise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe uses every option."""
    asked: list[str] = []
    monkeypatch.setattr(guard, "READABLE", ())  # as on a GPU

    def profiled(step: Any, device: Any, say: Any, learners: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                facts = step(*given)
            if not asked:
                asked.append("nothing")  # optimisers create their state in the first step
            else:
                waiting = ("aten::item", "aten::nonzero", "aten::lift_fresh")
                found = [
                    f"{event.name} of {event.cpu_parent and event.cpu_parent.name}"
                    for event in profile.events()
                    if event.name in waiting
                ]
                # The fused optimiser reads its learning rate back on a CPU, but not on a GPU.
                asked.extend(words for words in found if words != "aten::item of aten::_fused_sgd_")
            return facts

        return call

    monkeypatch.setattr(retraining, "GraphedStep", profiled)
    tiny = ["threads=1", "data.fraction=0.1", "skeleton.layers=3", "skeleton.channels=4", "epochs=2", "batch=20"]
    recipe = ["drop_path=0.4", "auxiliary=0.4", "retrain.amp=bf16", "ema=0.9", "nesterov=true", "accumulate=2"]
    assert main(["retrain", "PDARTS", "digits", *tiny, *recipe, "label_smoothing=0.1", f"run={tmp_path}"]) == 0
    assert asked == ["nothing"]


# --- the first replay --------------------------------------------------------------------------------------------


class Wrong(Replayed):
    """Graph whose replays do something else: `fault` changes a captured call, or returns None to leave it out."""

    def __init__(self, fault: Callable[[int, Any], Any]) -> None:
        super().__init__()
        self.fault = fault

    def replay(self) -> None:
        if not self.replays:
            changed = [self.fault(i, call) for i, call in enumerate(self.tape.calls)]
            self.tape.calls = [call for call in changed if call is not None]
        super().replay()


def left_out(*names: str) -> Callable[[int, Any], Any]:
    """Return a fault: a replay leaves out the operations with these names."""
    return lambda i, call: None if call[0].__name__.startswith(names) else call


def stale(i: int, call: Any) -> Any:
    """Return a captured call with copies of its first inputs, as if they had been freed and their memory reused."""
    func, args, kwargs, result = call
    if func.__name__.startswith("convolution"):
        args = (torch.zeros_like(args[0]), *args[1:])
    return func, args, kwargs, result


def not_a_number(i: int, call: Any) -> Any:
    """Return a captured call that multiplies by NaN, if it computes a batch norm."""
    func, args, kwargs, result = call
    if func.__name__.startswith("native_batch_norm.") and isinstance(args[7], float):
        args = (*args[:7], float("nan"))
    return func, args, kwargs, result


def same_numbers(i: int, call: Any) -> Any:
    """Return a captured call that draws other random numbers than the step."""
    func, args, _, result = call
    if func.__name__.startswith("random_"):
        return (lambda x, *_: x.fill_(0)), args, {}, result
    return call


FAULTS = {
    "weights are not updated": left_out("_fused_sgd"),
    "alpha is not updated": left_out("_fused_adam"),
    "running statistics are not updated": left_out("_foreach_lerp", "native_batch_norm"),
    "inputs are stale": stale,
    "random numbers differ": same_numbers,
    "a result is not a number": not_a_number,
}


QUICK = ("weights are not updated",)


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.proof]) for name in FAULTS]
)
def test_a_replay_that_differs_is_not_used(graphs: list[Replayed], fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps are then eager and bit-identical to those without a graph, and one line says why."""
    made: list[Wrong] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(Wrong(FAULTS[fault])) or made[-1])
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool, stream: graph.tape)
    said: list[str] = []
    expected = alternations(lambda step, built: step)
    found = alternations(lambda step, built: GraphedStep(step, GPU, said.append, built))
    assert 1 <= len(made) <= 2 and [graph.replays for graph in made[-1:]] == [1]
    assert len(said) == 1 and "eagerly instead of as CUDA graphs: the first replay differs from the step (" in said[0]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_rounding_does_not_count_as_a_difference() -> None:
    torch.manual_seed(0)
    weight, exact = torch.randn(1000), torch.randn(1000)
    states = [StepState([weight], CPU)]
    for change in (exact, exact * (1 + 1e-3 * torch.randn(1000)), exact * 0.9):
        weight.copy_(states[0].copies[0] + 1e-2 * change)
        states.append(StepState([weight], CPU))
    before, first, rounded, wrong = states
    assert (
        difference(before, first, rounded, ({"loss": (torch.tensor(2.0), 3)}, {"loss": (torch.tensor(2.001), 3)})) == ""
    )
    assert difference(before, first, wrong, ({}, {})) == "tensor 0"
    assert difference(before, first, first, ([torch.tensor(2.0)], [torch.tensor(2.2)])) == "result/0"
    assert difference(before, first, first, ([torch.tensor(3)], [torch.tensor(4)])) == "result/0"


def test_a_state_is_restored_with_its_random_numbers() -> None:
    layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    adam, counter, guard = torch.optim.Adam(layer.parameters(), 0.1, fused=True), torch.zeros(()), Guard(layer)

    def step() -> list[Tensor]:
        guard.begin()
        loss = layer(torch.randn(5, 2)).square().sum() * (torch.inf if counter == 1 else 1.0)
        gradients = torch.autograd.grad(loss, [*layer.parameters()])
        optimizer_step(adam, [*layer.parameters()], gradients, 1, guard.check("weights", gradients, loss))
        counter.add_(1)
        states = (layer.state_dict(), adam.state_dict()["state"][0], guard.state_dict())
        return [counter.clone(), *(value.clone() for one in states for value in one.values())]

    step()
    state = StepState([layer, adam, counter, guard, object()], CPU)
    first = step()
    state.restore()
    assert all(torch.equal(one, other) for one, other in zip(first, step(), strict=True))
