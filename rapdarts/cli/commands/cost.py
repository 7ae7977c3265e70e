"""`cost` and `measure`: what networks take, counted and by the clock."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from rapdarts.cli.arguments import Call
from rapdarts.cli.naming import space_asked
from rapdarts.cli.output import answer, write
from rapdarts.config import experiment as configuration
from rapdarts.config import knobs
from rapdarts.config.commands import CountConfig

if TYPE_CHECKING:
    from rapdarts.deploy.lookup import Target


def cost(call: Call) -> None:
    options = knobs.parse_settings(CountConfig, call.pairs)
    given = [knobs.full_name(CountConfig, key) for key, _ in call.pairs]
    from rapdarts.cost import layers as bill
    from rapdarts.cost import spaces as tariff
    from rapdarts.cost.prices import read_hardware
    from rapdarts.deploy import lookup as targets
    from rapdarts.deploy import skeletons
    from rapdarts.reports import costs, plots

    hardware = read_hardware(options.hardware)
    bits = options.precision or 32
    if not any(call.words) and (options.space or call.space):
        space = space_asked(options.space, call.space)
        targets.refuse(given, targets.OF_SPACE, f"space={space.name}")
        prices = tariff.space_prices(space, skeletons.skeleton_for(space, options), bits, hardware)
        answer(call, prices, costs.describe_space_prices(prices))
        return
    if call.target("a network (see --help), or space=NAME") == "filters":
        call.expect(1)
        targets.refuse(given, targets.OF_FILTERS, "filters")
        image = configuration.image_shape(options.input or "384x13x13")
        designs = tariff.filter_designs(image, options.channels or 256, bits, hardware)
        answer(call, designs, costs.describe_designs(designs))
        return
    if options.plot:
        plots.check(options.plot)
    with redirect_stdout(sys.stderr):  # a user's own code may print
        found = [_network(word, call.space, options) for word in call.words]
        targets.refuse(given, frozenset().union(*(one.keys for one in found)), " ".join(call.words))
        bills = []
        for one in found:
            own_bits, own_hardware = one.deployment
            energies = hardware if options.hardware else own_hardware
            precision = options.precision or own_bits
            bills.append(bill.network_costs(one, precision, energies, skeleton=one.skeleton, auxiliary=one.auxiliary))
    words = costs.describe_networks(bills, options.rows)
    if options.plot:
        picture = plots.draw([costs.panels(one) for one in bills], Path(options.plot).suffix)
        write(options.plot, picture)
        words += f"\nwritten to {options.plot}"
    trees = [one.to_json() for one in bills]
    answer(call, trees if len(trees) > 1 else trees[0], words)


def _network(name: str, file: str, options: CountConfig) -> Target:
    """The network of this name: the user's own, a reference network, or a genotype's, whose space may stand in a file."""
    from rapdarts.architecture.genotype import validate
    from rapdarts.deploy import lookup as targets

    target = targets.of_name(name, options)
    if target is not None:
        return target
    genotype, where = targets.genotype_named(name)
    space = space_asked(genotype.space, file)
    validate(genotype, space, where)
    return targets.of_genotype(name, genotype, space, options)
