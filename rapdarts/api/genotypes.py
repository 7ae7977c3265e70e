"""Read genotypes, derive them from a finished search with other settings, and build their networks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.api.own_space import with_own_resources
from rapdarts.api.process import unchanged_process
from rapdarts.architecture.genotype import Genotype
from rapdarts.config.given import AnyPath, Settings, command_options
from rapdarts.config.own_resources import derive_schema
from rapdarts.deploy import lookup
from rapdarts.deploy.lookup import Network
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError, shorten
from rapdarts.files import atomic, seal
from rapdarts.files.run_files import part_of

if TYPE_CHECKING:
    from rapdarts.networks.derived import DerivedNetwork
    from rapdarts.strategy.derive import Derivation


@unchanged_process
def read(genotype: Genotype | AnyPath, space: str = "") -> Genotype:
    """Read a genotype from a `Genotype`, a name from the literature such as PDARTS, a file, a run folder, or a string.

    The file may come from another program (docs/export.md lists the formats); `FILE:NAME` and `FILE:LINE` select one of
    several genotypes in it. `space` is the search space of a string that does not name its space; the default is the shipped
    space that fits. Raises InputError.
    """
    return lookup.find_network(lookup.word_of(genotype), space, networks=False).the_genotype()


@unchanged_process
@with_own_resources
def derive(
    search: Network | Sequence[Network],
    settings: Settings | None = None,
    *,
    space: Space = None,
    progress: bool = True,
    **keys: Any,
) -> Derivation:
    """Derive another genotype from a finished search with other budgets, or another rule or skeleton, as `rapdarts derive` does.

    `search` is the folder or the result of a search, its alphas.json, or a file with the architecture parameters of another
    program: an array (edges, primitives) for each kind of cell of `space`, in a .npz, .json or .pt file. Several searches with
    different seeds are averaged, and the settings of the first search are used. `keys` takes the keys of the command, such as
    `{"budget.params": "2.5M"}`, `max_skips=1` or `out=FILE`. Raises InputError.
    """
    options, _ = command_options(derive_schema(), settings, keys)
    space = options.space or None if space is None else space
    out = atomic.file_to_write(options.out) if options.out else None
    several = search if isinstance(search, list | tuple) else [search]
    if not several:
        raise InputError("rapdarts derive needs the folder of a finished search; pass at least one.")
    targets = [part_of(Path(lookup.word_of(one)), "search") for one in several]
    space = lookup.space_of(space, *several)
    for target in targets:
        if not os.path.exists(target):
            raise InputError(
                f"there is no file or folder {shorten(str(target))}; pass the folder of a finished search, or its alphas.json."
            )
    from rapdarts.loops.derive_again import derive_again
    from rapdarts.loops.in_programs import as_it_was
    from rapdarts.training.log import Screen

    with as_it_was():
        found = derive_again(targets, options, space, Screen(silent=not progress))
    if out is not None:
        atomic.write_atomically(out, seal.seal_json(found.genotype.to_json()))
    return found


@unchanged_process
def derived(
    genotype: Genotype | AnyPath,
    channels: int | None = None,
    layers: int | None = None,
    image: tuple[int, int, int] | None = None,
    classes: int | None = None,
    stem: str | None = None,
    *,
    auxiliary: bool = False,
    space: Space = None,
) -> DerivedNetwork:
    """Build the network of a genotype, with new weights: images (n, c, h, w) to logits (n, classes).

    `genotype` takes any form that `read` accepts. Arguments that are None default to the skeleton for which the genotype was
    priced or, if there is none, to the deployment skeleton of its space (darts: 36 channels, 20 layers) for images (3, 32, 32)
    and 10 classes. `stem` is cifar, imagenet or auto. With `auxiliary`, the network has a second head and returns a pair of
    logits in training mode. Raises InputError.
    """
    from rapdarts.deploy.network_costs import genotype_at, options_of

    options = options_of(channels=channels, layers=layers, image=image, classes=classes, stem=stem)
    return genotype_at(read(genotype), lookup.space_of(space, genotype), options).build(auxiliary)
