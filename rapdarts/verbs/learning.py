"""`retrain` and `evaluate`: from a genotype to a trained network, and how good it is."""

from __future__ import annotations

from pathlib import Path

from rapdarts import knobs
from rapdarts.call import Call, answer
from rapdarts.errors import InputError
from rapdarts.options import EvaluateConfig
from rapdarts.plain_yaml import shorten
from rapdarts.verbs.naming import costs_line, experiment_asked, plan_asked, space_asked


def retrain(call: Call) -> None:
    call.expect(2)
    target = call.target(
        "a genotype (a file, a run folder or a literature name such as PDARTS), or a reference network such as lenet"
    )
    if len(call.words) < 2:
        raise InputError("rapdarts retrain needs an experiment after the network, such as digits.")
    config, launch = experiment_asked(call, call.words[1])
    if config is None:
        return
    from rapdarts import launches

    plan, name = plan_asked(call, target), Path(call.words[1]).stem
    found = launches.retrain(config, plan, launch, name, launches.source(call.space))
    words = f"test accuracy {found.test}"
    if found.best is not None:
        words += f"\nbest on validation: test accuracy {found.best}"
    answer(call, found.report, f"{words}\n{costs_line(found.costs)}\nwritten to {found.file}")


def evaluate(call: Call) -> None:
    call.expect(2)
    target = Path(call.target("a run folder of rapdarts retrain, or a network.safetensors"))
    options = knobs.load(EvaluateConfig, call.pairs)
    from rapdarts.evaluate import accuracy, experiment_of
    from rapdarts.trained import load_network, read_trained
    from rapdarts.training.augment import Augment
    from rapdarts.training.data import load, ordered
    from rapdarts.training.device import device_named

    file = target / "network.safetensors" if target.is_dir() else target
    trained = read_trained(file, lambda name: space_asked(name, call.space))
    config = experiment_of(file, *call.words[1:])
    if options.path:
        config.data.path = options.path
    device = device_named(options.device, options.threads or config.threads)
    network = load_network(trained).to(device)
    data = load(config.data, device, config.seed)
    known, found = (trained.blueprint.input, trained.class_names), (data.image, data.class_names)
    if known != found:
        raise InputError(
            f"{trained.path} was trained on images {known[0]} of the classes {shorten(', '.join(known[1]))}, but these are"
            f" {found[0]} of {shorten(', '.join(found[1]))}; name other data with path=PATH, or another experiment."
        )
    result = accuracy(network, ordered(data.test, None, options.batch, Augment(trained.mean, trained.std)))
    values = {"test_accuracy": result.share, "standard_error": result.standard_error, "n": result.n}
    answer(call, {**values, "test_loss": result.loss}, f"test accuracy {result}")
