"""`vlprep datasets`: what is in a user's folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import counted, print_facts, print_json, print_table

if TYPE_CHECKING:
    from vlprep.datasets import Inspection
    from vlprep.datasets.inspection import Finding


@click.group()
def datasets() -> None:
    """What is in a folder of images, videos and captions."""


@datasets.command()
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@common_options
def inspect(folder: Path, as_json: bool) -> None:
    """What is recognised below FOLDER, what is missing, what is doubled.

    Reads all annotation files and opens no picture or video.
    """
    from vlprep.datasets import inspect as inspect_folder

    found = inspect_folder(folder)
    if as_json:
        print_json(found.as_json())
        return
    amounts = {
        "image": found.images,
        "video": found.videos,
        "caption": found.captions,
        "narrated segment": found.segments,
    }
    holds = ", ".join(counted(count, noun) for noun, count in amounts.items() if count)
    print_facts([("folder", found.root), ("holds", holds or "no image and no video")])
    if found.files:
        click.echo()
        header = ["file", "what it is", "entries", "for items"]
        print_table(header, ((file.path, file.format, file.entries, file.items) for file in found.files))
    remarks = list(_remarks(found))
    click.echo("\n" + "\n".join(remarks or ["Nothing is missing or doubled."]))


def _remarks(found: Inspection) -> Iterator[str]:
    for name in found.boxes:
        yield f"boxes for --given-boxes: {name}"
    for name, reason in found.unreadable.items():
        yield f"unreadable: {name}: {reason}"
    for name, finding in _findings(found):
        yield f"{name.replace('_', ' ')}: {finding.count:,}"
        yield from (f"  {example}" for example in finding.examples)
        if finding.count > len(finding.examples):
            yield f"  and {finding.count - len(finding.examples):,} more"


def _findings(found: Inspection) -> Iterator[tuple[str, Finding]]:
    from vlprep.datasets.inspection import Finding

    for field in fields(found):
        value = getattr(found, field.name)
        if isinstance(value, Finding) and value.count:
            yield field.name, value
