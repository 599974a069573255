"""Whether a store is what its marks say: every byte is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from vlprep.errors import VlprepError
from vlprep.shards.atomic import stale_files
from vlprep.shards.manifest import MANIFEST_NAME, VOCABULARY_NAME, Manifest, read_manifest
from vlprep.shards.marks import Mark, decode_mark, mark_path, numbered, part_path
from vlprep.shards.plan import PLAN_NAME, Plan, read_plan
from vlprep.shards.schema import column_types
from vlprep.weights import sha256_of

_REDO = "remove its .json and run the command again"
_REDO_VOCABULARY = "run `vlprep cluster-video` again, or begin anew with --overwrite"


def verify(folder: Path) -> list[str]:
    """Everything that is wrong with a store, a line each that names the file; empty if all is well.

    The vocabulary beside tokens belongs to it. Parts that are planned and not begun are no damage. Raises
    `SettingsError` if the folder is no store.
    """
    try:
        manifest, plan = read_manifest(folder), read_plan(folder) or Plan.empty(1)
    except VlprepError as error:
        if not (folder / MANIFEST_NAME).exists():
            raise
        return [str(error)]
    return list(_problems(folder, manifest, plan))


def _problems(folder: Path, manifest: Manifest, plan: Plan) -> Iterator[str]:
    if not manifest.is_consistent():
        yield f"{MANIFEST_NAME}: its fingerprint does not belong to its settings; was it edited?"
    yield from (
        f"{path.name}: left by a process that was killed; the next run removes it" for path in stale_files(folder)
    )
    if manifest.kind == "tokens" and manifest.weights is not None:
        yield from _vocabulary_problems(folder / VOCABULARY_NAME, manifest.weights["sha256"])
    marked = set(numbered(folder, ".json"))
    ids: Counter[str] = Counter()
    for part in sorted(marked.union(numbered(folder, ".arrow"))):
        name = part_path(folder, part).name
        if part >= plan.num_parts:
            yield f"{name}: not in {PLAN_NAME}; remove {name} and {mark_path(folder, part).name}"
        elif part in marked:
            yield from _part_problems(folder, manifest, plan.entries(part), part, ids)
        else:
            yield f"{name}: has no mark, so it does not count; the next run makes it again"
    yield from (f"{item}: has {count} rows" for item, count in ids.items() if count > 1)


def _vocabulary_problems(path: Path, sha256: str) -> Iterator[str]:
    if not path.is_file():
        yield f"{path.name}: missing; {_REDO_VOCABULARY}"
    elif sha256_of(path) != sha256:
        yield f"{path.name}: not the one that the tokens were made with (SHA-256); remove it and {_REDO_VOCABULARY}"


def _part_problems(
    folder: Path, manifest: Manifest, planned: Mapping[str, int], part: int, ids: Counter[str]
) -> Iterator[str]:
    """Also counts the part's rows by id."""
    try:
        mark = decode_mark(mark_path(folder, part).read_bytes())
    except ValueError as error:
        yield f"{mark_path(folder, part).name}: {error}; the next run makes the part again"
        return
    path = part_path(folder, part)
    if not path.exists():
        yield f"{path.name}: missing, though it has a mark; the next run makes it again"
        return
    if path.stat().st_size != mark.bytes:
        yield f"{path.name}: {path.stat().st_size} bytes instead of {mark.bytes}; the next run makes it again"
        return
    if sha256_of(path) != mark.sha256:
        yield f"{path.name}: its bytes have changed (SHA-256); {_REDO}"
        return
    yield from (f"{path.name}: {problem}; {_REDO}" for problem in _content_problems(path, manifest, planned, mark, ids))


def _content_problems(
    path: Path, manifest: Manifest, planned: Mapping[str, int], mark: Mark, ids: Counter[str]
) -> Iterator[str]:
    """A part whose bytes are those that were written: is it the one that plan, mark and settings speak of?"""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            schema = file.schema
            batches = [file.get_batch(number) for number in range(file.num_record_batches)]
    except (pa.ArrowException, OSError) as error:
        yield f"no Arrow file ({error})"
        return
    if column_types(schema) != dict(manifest.columns):
        yield f"columns differ from {MANIFEST_NAME}"
        return
    rows = [item for batch in batches for item in batch.column("id").to_pylist()]
    ids.update(rows)
    if tuple(batch.num_rows for batch in batches) != mark.batches or len(rows) != mark.rows:
        yield f"{len(rows)} rows in {len(batches)} batches instead of {mark.rows} in {len(mark.batches)}"
    lists = next(field.name for field in schema if pa.types.is_list(field.type))
    lengths = [length for batch in batches for length in batch.column(lists).value_lengths().to_pylist()]
    if tuple(lengths) != mark.lengths:
        yield "lengths of rows differ from its mark"
    failed = {failure.id for failure in mark.failures}
    if rows != [item for item in planned if item not in failed] or not failed <= planned.keys():
        yield "rows and failures are not the planned items"
