"""Scenes to pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlprep.media.scenes.layout import COLOURS, SHAPES, Scene

_SUPERSAMPLING = 4


def render(scene: Scene) -> NDArray[np.uint8]:
    """The picture, (height, width, 3) RGB: shaded shapes on a dull textured gradient, with sensor-like noise."""
    rng = np.random.default_rng([scene.seed, 1])
    canvas = _background(rng, scene.width, scene.height)
    for thing in scene.objects:
        x1, y1, x2, y2 = thing.box
        cover = _coverage(thing.shape, x2 - x1)[:, :, None]
        tint = np.asarray(COLOURS[thing.colour], np.float32) + rng.uniform(-14, 14, 3).astype(np.float32)
        shade = np.linspace(1.06, rng.uniform(0.86, 1.0), y2 - y1, dtype=np.float32)[:, None, None]
        canvas[y1:y2, x1:x2] += cover * (tint * shade - canvas[y1:y2, x1:x2])
    canvas += rng.normal(0.0, rng.uniform(1.0, 6.0), canvas.shape).astype(np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """A gradient between two dull colours under stripes: nothing in it is as saturated as the objects."""
    grey = rng.uniform(45, 215, (2, 1))
    first, second = (grey + rng.uniform(-16, 16, (2, 3))).astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = math.cos(angle) * x / width + math.sin(angle) * y / height
    along = (along - along.min()) / (along.max() - along.min())
    canvas: NDArray[np.float32] = first + along[:, :, None] * (second - first)
    wave = np.sin((x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) * rng.uniform(0.1, 0.8))
    canvas += np.float32(rng.uniform(0, 12)) * wave[:, :, None]
    return canvas


def _coverage(shape: str, side: int) -> NDArray[np.float32]:
    """How much of each pixel of a (side, side) box the shape covers, 0 to 1."""
    big = side * _SUPERSAMPLING
    mask = Image.new("L", (big, big))
    draw = ImageDraw.Draw(mask)
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, big - 1, big - 1), fill=255)
        if shape == "ring":
            rim = round(big * 0.22)
            draw.ellipse((rim, rim, big - 1 - rim, big - 1 - rim), fill=0)
    else:
        draw.polygon([(x * (big - 1), y * (big - 1)) for x, y in _outline(shape)], fill=255)
    cells = np.asarray(mask, np.float32).reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING)
    share: NDArray[np.float32] = cells.mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return share


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape that touches all four sides of the unit square."""
    if shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if shape == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    if shape == "cross":
        a, b = 0.33, 0.67
        return [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
    if shape == "star":
        turns = [math.pi * k / 5 for k in range(10)]
        radii = [1.0 if k % 2 == 0 else 0.42 for k in range(10)]
        points = [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, turns, strict=True)]
        left, right = min(x for x, _ in points), max(x for x, _ in points)
        top, bottom = min(y for _, y in points), max(y for _, y in points)
        return [((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in points]
    raise ValueError(f"no shape {shape!r}: one of {', '.join(SHAPES)}")
