"""Captions of rendered scenes: varied English, and never a word that the picture does not bear out."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np

from vlprep.media.scenes.layout import Scene, SceneObject

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_CLEARLY_BESIDE = 0.6
"""How far apart two centres must lie, in mean side lengths, before one is called left of or above the other."""
_CLEARLY_BIGGER = 1.6
"""Ratio of areas."""


def captions(scene: Scene, count: int) -> list[str]:
    """`count` captions that are true of the scene, in an order set by its seed; they repeat only when `count` exceeds
    what there is to say (never below five)."""
    things = Counter(thing.class_name for thing in scene.objects)
    single = [thing for thing in scene.objects if things[thing.class_name] == 1]
    pools = [_inventories(things), _mentions(things), _places(scene, single), _relations(single)]
    rng = np.random.default_rng([scene.seed, 2])
    # One sentence of each sort in turn, so that a scene with many pairs is not described by relations alone.
    shuffled = [[str(text) for text in rng.permutation(pool)] for pool in pools if pool]
    rounds = max(len(pool) for pool in shuffled)
    ordered = [pool[turn] for turn in range(rounds) for pool in shuffled if turn < len(pool)]
    return [ordered[index % len(ordered)] for index in range(count)]


def _noun(name: str, count: int) -> str:
    if count > 1:
        return f"{_NUMBERS[count]} {name}{'es' if name.endswith('s') else 's'}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _inventories(things: Counter[str]) -> list[str]:
    """Sentences that name everything."""
    nouns = [_noun(name, count) for name, count in things.items()]
    listed = nouns[0] if len(nouns) == 1 else f"{', '.join(nouns[:-1])} and {nouns[-1]}"
    total = sum(things.values())
    return [
        listed,
        f"a picture of {listed}",
        f"{_NUMBERS[total]} {'shape' if total == 1 else 'shapes'}: {listed}",
    ]


def _mentions(things: Counter[str]) -> list[str]:
    """Sentences that name one kind, with its number."""
    sentences = []
    for name, count in things.items():
        noun = _noun(name, count)
        sentences += [f"there {'is' if count == 1 else 'are'} {noun} in the picture", f"we can see {noun}"]
    return sentences


def _places(scene: Scene, single: list[SceneObject]) -> list[str]:
    sentences = []
    for thing in single:
        x, y = thing.centre
        across = ("left", "", "right")[min(2, int(3 * x / scene.width))]
        down = ("top", "", "bottom")[min(2, int(3 * y / scene.height))]
        where = f"{down} {across}".strip()
        noun = _noun(thing.class_name, 1)
        sentences.append(f"{noun} at the {where}" if where else f"{noun} in the middle")
    return sentences


def _relations(single: list[SceneObject]) -> list[str]:
    sentences = []
    for one, other in permutations(single, 2):
        first, second = _noun(one.class_name, 1), _noun(other.class_name, 1)
        apart = _CLEARLY_BESIDE * (one.area**0.5 + other.area**0.5) / 2
        right, down = other.centre[0] - one.centre[0], other.centre[1] - one.centre[1]
        if right > apart:
            sentences += [f"{first} left of {second}", f"{second} to the right of {first}"]
        if down > apart:
            sentences += [f"{first} above {second}", f"{second} below {first}"]
        if one.area > _CLEARLY_BIGGER * other.area:
            sentences += [f"{first} that is bigger than {second}", f"{second} is smaller than {first}"]
    return sentences
