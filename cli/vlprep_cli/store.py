"""`vlprep store`: look into a store, check it, export it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vlprep.errors import SettingsError
from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import bytes_text, counted, duration_text, failure_lines, print_facts, print_json

_HASH_SHOWN = 12


def _find_store(ctx: click.Context, parameter: click.Parameter, folder: Path) -> Path:
    """The store that is meant: the folder itself, or the only one of a dataset folder."""
    if (folder / "store.json").exists():
        return folder
    stores = sorted(path.parent for path in folder.glob("vlprep/*/store.json"))
    if len(stores) > 1:
        raise SettingsError(f"{folder} has several stores, name one: {', '.join(map(str, stores))}")
    return stores[0] if stores else folder


_store_argument = click.argument("folder", metavar="STORE", type=click.Path(path_type=Path), callback=_find_store)


@click.group()
def store() -> None:
    """Look into a store, check it, export it.

    STORE is a store's folder, such as coco/vlprep/regions, or a dataset's folder that has just one.
    """


@store.command()
@_store_argument
@json_option
@common_options
def info(folder: Path, as_json: bool) -> None:
    """What a store is, how far it is, and what failed."""
    from vlprep.shards import Failure
    from vlprep.shards.describe import describe

    facts = describe(folder)
    if as_json:
        print_json(facts)
        return
    print_facts(_facts(facts))
    for line in failure_lines([Failure(**failure) for failure in facts["failures"]]):
        click.echo(line)


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    state = "complete" if not facts["pending"] else f"{facts['pending']:,} of {facts['planned']:,} items to do"
    lines = [
        ("store", f"{facts['folder']} ({facts['kind']}, {state})"),
        ("rows", f"{facts['rows']:,} of {counted(facts['planned'], 'item')}, {facts['failed']:,} failed"),
        ("parts", f"{facts['parts_done']:,} of {facts['parts']:,}"),
        ("size", bytes_text(facts["bytes"])),
        ("work", duration_text(facts["seconds"])),
    ]
    if facts["entries_per_row"]:
        least, mean, most = facts["entries_per_row"]
        lines.append(("lengths", f"{facts['entries']:,} entries: {least} to {most} a row, {mean:.1f} on average"))
    if names := [f"{count:,} {kind}" for kind, count in facts["names"].items() if count]:
        lines.append(("names", ", ".join(names)))
    lines += [("column", f"{name}: {kind}") for name, kind in facts["columns"].items()]
    lines += [
        ("setting", f"{name} = {json.dumps(value, ensure_ascii=False)}") for name, value in facts["settings"].items()
    ]
    if facts["weights"]:
        lines.append(("weights", f"{facts['weights']['source']} (SHA-256 {facts['weights']['sha256'][:_HASH_SHOWN]}…)"))
    lines.append(("made with", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())))
    lines.append(("fingerprint", facts["fingerprint"]))
    return lines


@store.command()
@_store_argument
@json_option
@common_options
@click.pass_context
def verify(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """Read every byte and hold it against the commit marks. Exit code 1 if anything is wrong."""
    from vlprep.shards.verify import verify as verify_store

    problems = verify_store(folder)
    if as_json:
        print_json({"folder": str(folder), "problems": problems})
    elif problems:
        click.echo("\n".join(problems))
    else:
        click.echo(f"{folder}: all is well")
    if problems:
        ctx.exit(1)


@store.command()
@_store_argument
@click.option("-n", "--rows", type=click.IntRange(min=1), default=3, help="How many rows.")
@json_option
@common_options
def head(folder: Path, rows: int, as_json: bool) -> None:
    """The first rows: numbers and text as they are, arrays by shape, range and first values."""
    from vlprep.shards.describe import head as first_rows

    found = first_rows(folder, rows)
    if as_json:
        print_json(found)
        return
    for number, row in enumerate(found):
        if number:
            click.echo()
        print_facts((name, _cell(value)) for name, value in row.items())


def _cell(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    text = f"{value['dtype']} {tuple(value['shape'])}"
    if "first" not in value:
        return text
    first = " ".join(f"{number:.4g}" for number in value["first"])
    return f"{text}  {value['min']:.4g} … {value['max']:.4g}  [{first} …]"


@store.command("export-parquet")
@_store_argument
@click.argument("out", type=click.Path(path_type=Path))
@json_option
@common_options
def export_parquet(folder: Path, out: Path, as_json: bool) -> None:
    """Write a whole store as Parquet files, one a part, into the new or empty folder OUT."""
    from vlprep.shards.export import export_parquet as export

    paths = export(folder, out)
    if as_json:
        print_json([str(path) for path in paths])
        return
    size = sum(path.stat().st_size for path in paths)
    click.echo(f"{out}: {counted(len(paths), 'Parquet file')}, {bytes_text(size)}")
