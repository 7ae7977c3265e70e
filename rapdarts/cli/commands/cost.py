"""`cost`: costs of networks layer by layer, of all networks of a space, or of filter designs."""

from __future__ import annotations

from rapdarts import api
from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer
from rapdarts.config.command_keys import parse_options
from rapdarts.config.command_options import CountConfig


def cost(call: Call) -> None:
    if not any(call.words) and (call.space or "space" in call.values):
        prices = api.space_prices(call.values, space=call.space_file)
        from rapdarts.reports.costs import describe_space_prices

        answer(call, prices, describe_space_prices(prices))
    elif call.target("a network, or space=NAME") == "filters":
        call.expect(1)
        designs = api.filter_designs(call.values)
        from rapdarts.reports.costs import describe_designs

        answer(call, designs, describe_designs(designs))
    else:
        options = parse_options(CountConfig, call.pairs)
        found = api.layer_costs(call.words, call.values, space=call.space_file)
        from rapdarts.reports.costs import describe_networks

        trees = [one.to_json() for one in found]
        written = f"\nwritten to {options.plot}" if options.plot else ""
        answer(call, trees if len(trees) > 1 else trees[0], f"{describe_networks(found, options.rows)}{written}")
