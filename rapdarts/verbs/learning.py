"""`retrain`: from a genotype to a trained network."""

from __future__ import annotations

from pathlib import Path

from rapdarts.call import Call, answer
from rapdarts.errors import InputError
from rapdarts.verbs.naming import blueprints, costs_line, experiment_asked, source


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
    from rapdarts.loops import retrain as loop
    from rapdarts.training.data import load
    from rapdarts.training.device import training_device
    from rapdarts.training.run import open_run

    blueprint_for = blueprints(call, target)
    data = load(config.data, training_device(config.device, config.threads), config.seed)
    blueprint = blueprint_for(config, data)
    # Before a folder is made, these two refuse images that are too small and a batch that is too large.
    costs = blueprint.costs
    loop.training_batches(config, data)
    inputs = {"data set": data.fingerprint, **blueprint.origin, "search space": source(call.space)}
    with open_run("retrain", config, launch, Path(call.words[1]).stem, inputs) as run:
        for remark in blueprint.remarks(config.retrain):
            run.screen.say(remark)
        trained = loop.retrain(config, blueprint, data, run)
        report = loop.result(trained, blueprint, config.retrain, run)
        run.write_json("result.json", report)
    words = f"test accuracy {trained.test}"
    if trained.best is not None:
        words += f"\nbest on validation: test accuracy {trained.best}"
    answer(call, report, f"{words}\n{costs_line(costs)}\nwritten to {run.folder / 'network.safetensors'}")
