"""`vlprep tokenize`: captions and narration into a text store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import bytes_text, counted, failure_lines, print_facts, print_json, shallow_dict
from vlprep_cli.stage import EXIT_FAILURES

if TYPE_CHECKING:
    from vlprep.text.word_vectors import Coverage

_EPILOG = """\b
Tokenizers (--tokenizer):
  train:8000         WordPiece of that size, trained on the dataset's own texts; nothing is downloaded
  bert-base-uncased  or another name on the Hub, from its cache if it is there
  FILE               a tokenizer.json, or BERT's vocab.txt
  words:FILE         words with vectors (HowTo100M, MIL-NCE): word2vec's .bin or text, gensim's .kv, MIL-NCE's
                     dict.npy, or the text store of another dataset
  words:train:300    the same with vectors of that size trained on the dataset's own texts

\b
Examples:
  vlprep tokenize coco --tokenizer bert-base-uncased
  vlprep tokenize howto100m --tokenizer words:GoogleNews-vectors-negative300.bin --out howto100m/vlprep/words
"""


@click.command(epilog=_EPILOG)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", help="A name, a file, or train:SIZE.  [default: the store's own; train:8000 for a new store]"
)
@click.option(
    "--word-vectors",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also say how many words these vectors lack.",
)
@click.option("--overwrite", is_flag=True, help="Begin the store anew.")
@click.option("--out", type=click.Path(path_type=Path), help="The store's folder.  [default: DATASET/vlprep/text]")
@json_option
@common_options
@click.pass_context
def tokenize(
    ctx: click.Context,
    /,
    dataset: Path,
    tokenizer: str | None,
    word_vectors: Path | None,
    overwrite: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Captions and narration of the folder DATASET as piece ids, or as words with vectors.

    Writes Arrow files and tokenizer.json (or the vectors) into DATASET/vlprep/text. Texts that were added to the folder
    since are added to the store by the same command, with the store's own tokenizer.
    """
    from vlprep.stages.tokenize_text import tokenize_text, word_coverage

    report = tokenize_text(dataset, tokenizer, out=out, overwrite=overwrite)
    coverage = word_coverage(report.folder, word_vectors) if word_vectors else report.coverage
    status = report.status
    if as_json:
        facts_of_store = {name: value for name, value in shallow_dict(report).items() if name != "coverage"}
        print_json({**facts_of_store, "word_vectors": coverage and _coverage_facts(coverage)})
    else:
        unit = "word" if report.coverage else "piece"
        facts = [
            ("store", str(report.folder)),
            ("texts", f"{status.rows:,} of {status.planned:,} done, {status.failed:,} failed"),
            ("tokenizer", f"{report.tokenizer}, {counted(report.vocabulary, unit)}"),
            ("this run", counted(report.pieces, unit)),
            ("size", bytes_text(status.bytes)),
        ]
        print_facts([*facts, *(_coverage_lines(coverage) if coverage else [])])
        for line in failure_lines(status.failures):
            click.echo(line)
    if status.failed:
        ctx.exit(EXIT_FAILURES)


def _coverage_facts(coverage: Coverage) -> dict[str, object]:
    """JSON-ready, with the rate."""
    return {**shallow_dict(coverage), "unknown_rate": coverage.unknown_rate}


def _coverage_lines(coverage: Coverage) -> list[tuple[str, str]]:
    unknown = f"{coverage.unknown:,} of {counted(coverage.words, 'word')} ({100 * coverage.unknown_rate:.1f} %)"
    missed = ", ".join(f"{word} {count:,}" for word, count in coverage.most_missed)
    return [
        ("no vector", unknown + (f": {missed}" if missed else "")),
        ("silent", f"{coverage.silent:,} of {counted(coverage.texts, 'text')} have no word with a vector"),
    ]
