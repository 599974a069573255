"""`vlprep objectives`: the pretraining tasks by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
            [
                ("reads", ", ".join(entry.inputs)),
                ("model", entry.kind),
                ("loss", entry.formula),
                ("from", entry.source),
                ("settings", ", ".join(_named(entry.settings))),
            ]
        )


def _named(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`name=value`, as `--set objectives.OBJECTIVE.` takes them."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={str(value).lower() if isinstance(value, bool) else value}"
