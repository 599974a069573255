"""`vlprep detectors`: what `--detector` takes."""

from __future__ import annotations

import click

from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import print_facts, print_json


@click.command()
@json_option
@common_options
def detectors(as_json: bool) -> None:
    """The families of region detectors, by the name that --detector takes.

    Weights are fetched from the family's public place, or given by --weights. A detector of your own is
    package.module:function, called as vlprep.detect.families describes.
    """
    from vlprep.detect.families import families

    if as_json:
        print_json(families())
    else:
        print_facts(families().items())
