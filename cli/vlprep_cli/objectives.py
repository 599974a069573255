"""`vlprep objectives`: the pretraining tasks by name."""

from __future__ import annotations

import click

from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import print_facts, print_json


@click.command()
@json_option
@common_options
def objectives(as_json: bool) -> None:
    """The pretraining objectives: what each reads, its formula and whose it is.

    `vlprep pretrain --objective NAME+NAME` trains them by hand, a --recipe as published.
    """
    from vlprep.pretrain.objectives.catalogue import list_objectives

    listed = list_objectives()
    if as_json:
        print_json(listed)
        return
    for place, entry in enumerate(listed):
        if place:
            click.echo()
        click.echo(f"{entry.name}  ({entry.systems})")
        print_facts(
            [("reads", ", ".join(entry.inputs)), ("model", entry.kind), ("loss", entry.formula), ("from", entry.source)]
        )
