"""Names of the 1600 classes and 400 attributes of Visual Genome that bottom-up attention was trained on.

The lists are `objects_vocab.txt` and `attributes_vocab.txt` of peteanderson80/bottom-up-attention, in column order; a
line holds synonyms, the first of which is shown.
"""

from __future__ import annotations

from importlib.resources import files


def class_names() -> tuple[str, ...]:
    """The 1600 foreground classes."""
    return _first_synonyms("objects.txt")


def attribute_names() -> tuple[str, ...]:
    """The 400 attributes."""
    return _first_synonyms("attributes.txt")


def _first_synonyms(file: str) -> tuple[str, ...]:
    lines = files("vlprep.detect").joinpath("vocab", file).read_text(encoding="utf-8").splitlines()
    return tuple(line.split(",")[0] for line in lines)
