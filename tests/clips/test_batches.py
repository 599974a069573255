"""Clips of several videos into batches: full, of one shape, in order, and the same whatever comes first."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vlprep.clips.batches import Batch, Batcher

SHAPES = [(2, 4, 4, 3), (2, 4, 8, 3)]
PIXELS = 128  # four clips of the first shape, two of the second


def clips_of(video: int, count: int) -> list[np.ndarray]:
    return [np.full(SHAPES[video % 2], n, np.uint8) for n in range(count)]


def run(lengths: list[int], order: list[int], failed: frozenset[int] = frozenset()) -> list[Batch[tuple[int, int]]]:
    """Feed the videos' clips interleaved as `order` says: the number of a video for each clip and for its end."""
    batcher: Batcher[tuple[int, int]] = Batcher(PIXELS)
    streams = [list(enumerate(clips_of(video, length))) for video, length in enumerate(lengths)]
    batches: list[Batch[tuple[int, int]]] = []
    for video in order:
        if streams[video]:
            n, clip = streams[video].pop(0)
            batches += batcher.add(video, (video, n), clip)
        else:
            batches += batcher.end(video, failed=video in failed)
    return batches + list(batcher.flush())


def one_by_one(lengths: list[int]) -> list[int]:
    return [video for video, length in enumerate(lengths) for _ in range(length + 1)]


def contents(batches: list[Batch[tuple[int, int]]]) -> set[tuple[tuple[int, int], ...]]:
    return {tuple(batch.owners) for batch in batches}


def test_a_video_fills_batches_and_the_rests_share() -> None:
    batches = run([6, 1, 3, 0, 1, 2], one_by_one([6, 1, 3, 0, 1, 2]))
    assert [batch.owners for batch in batches] == [
        [(0, 0), (0, 1), (0, 2), (0, 3)],
        [(0, 4), (0, 5), (2, 0), (2, 1)],
        [(5, 0), (5, 1)],
        [(1, 0)],
        [(2, 2), (4, 0)],
    ]
    for batch in batches:
        assert batch.clips_NTHW3.shape == (len(batch.owners), *SHAPES[batch.owners[0][0] % 2])
        assert batch.clips_NTHW3[:, 0, 0, 0, 0].tolist() == [n for _, n in batch.owners]


@pytest.mark.parametrize("seed", range(20))
def test_batches_do_not_depend_on_what_comes_first(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.choice([0, 1, 2, 3, 5, 9]) for _ in range(12)]
    failed = frozenset(rng.sample(range(12), 2))
    order = one_by_one(lengths)
    rng.shuffle(order)
    shuffled, straight = run(lengths, order, failed), run(lengths, one_by_one(lengths), failed)
    assert contents(shuffled) == contents(straight)
    seen = [owner for batch in shuffled for owner in batch.owners]
    assert len(seen) == len(set(seen))
    for video, length in enumerate(lengths):
        mine = [n for owner, n in seen if owner == video]
        assert mine == list(range(length if video not in failed else len(mine)))


def test_odd_shapes_do_not_pile_up() -> None:
    batcher: Batcher[int] = Batcher(PIXELS)
    held = 0
    taken: list[int] = []
    for video in range(100):
        list(batcher.add(video, video, np.zeros((1, 2, 2 + video % 23, 3), np.uint8)))
        held += 2 * (2 + video % 23)
        for batch in batcher.end(video):
            taken += batch.owners
            held -= batch.clips_NTHW3[..., 0].size
        assert held <= 4 * PIXELS
    taken += [owner for batch in batcher.flush() for owner in batch.owners]
    assert sorted(taken) == list(range(100))


def test_a_clip_larger_than_a_batch_goes_alone() -> None:
    batcher: Batcher[str] = Batcher(10)
    assert [batch.owners for batch in batcher.add(0, "a", np.zeros((1, 4, 4, 3), np.uint8))] == [["a"]]
