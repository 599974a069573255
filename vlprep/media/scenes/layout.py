"""What a rendered scene holds, and how one is made up: which kinds of object, how many, where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (208, 32, 38),
    "orange": (242, 136, 20),
    "yellow": (245, 220, 45),
    "green": (40, 150, 60),
    "cyan": (60, 205, 215),
    "blue": (35, 70, 200),
    "purple": (120, 40, 150),
    "pink": (245, 140, 190),
}
CLASS_NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

_MOST_KINDS = 4
_LARGEST_OVERLAP = 0.08
"""Of the smaller box' area: enough that shapes touch, too little to hide what they are."""
_PLACEMENT_TRIES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One shape; `box` is x1, y1, x2, y2 in pixels, corners as edges: the shape touches all four sides."""

    shape: str
    colour: str
    box: tuple[int, int, int, int]

    @property
    def class_name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def area(self) -> int:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows. `objects` are in drawing order: a later one lies over an earlier one."""

    width: int
    height: int
    objects: tuple[SceneObject, ...]
    seed: int
    """Of the background, its noise and the wording of the captions."""


def random_scene(seed: int) -> Scene:
    """A scene of one to four kinds of object, a kind drawn once or, at times, two or three times over.

    Kinds of one scene differ both in shape and in colour. So a colour or shape word that is taken out of a caption can
    be told from the picture, which is what masked language modelling on these scenes measures.
    """
    rng = np.random.default_rng([seed, 0])
    width, height = int(rng.integers(160, 241)), int(rng.integers(120, 201))
    kinds = int(rng.integers(1, _MOST_KINDS + 1))
    shapes = rng.permutation(SHAPES)[:kinds]
    colours = rng.permutation(list(COLOURS))[:kinds]
    copies = rng.choice((1, 2, 3), size=kinds, p=(0.8, 0.15, 0.05))
    wanted = [(str(s), str(c)) for s, c, n in zip(shapes, colours, copies, strict=True) for _ in range(n)]
    objects: list[SceneObject] = []
    for index in rng.permutation(len(wanted)):
        box = _free_place(rng, width, height, [other.box for other in objects])
        if box is not None:
            shape, colour = wanted[index]
            objects.append(SceneObject(shape=shape, colour=colour, box=box))
    return Scene(width=width, height=height, objects=tuple(objects), seed=seed)


def _free_place(
    rng: np.random.Generator, width: int, height: int, taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    for _ in range(_PLACEMENT_TRIES):
        side = int(min(height, width) * rng.uniform(0.15, 0.42))
        x1, y1 = int(rng.integers(1, width - side)), int(rng.integers(1, height - side))
        box = (x1, y1, x1 + side, y1 + side)
        if all(_overlap(box, other) <= _LARGEST_OVERLAP for other in taken):
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return across * down / min((a[2] - a[0]) ** 2, (b[2] - b[0]) ** 2)
