"""HERO's frame order: what is shuffled, where clips and texts meet, and that order is learned from what shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vlprep.pretrain.base import NarratedVideo, Sample, StoreFacts
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.hero import Hero, HeroSettings, hero_config
from vlprep.pretrain.objectives.frame_order import FrameOrder, shuffle
from vlprep.pretrain.objectives.told_clips import SegmentRule, SegmentSettings

WORDS = TextVocabulary(size=40, pad=0, cls=2, sep=3, mask=4, first_word=5)
DIM = 8
SETTINGS = HeroSettings(layers=1, video_layers=1, hidden=32, heads=2, intermediate=64, positions=24, dropout=0.0)


def video(draw: np.random.Generator, clips: int = 12, *, ordered: bool = True, each: int = 3) -> NarratedVideo:
    """Clips of one second, of which the first number grows with time if `ordered`; a segment for `each` so many."""
    features = draw.normal(0, 0.1, (clips, DIM)).astype(np.float32)
    features[:, 0] = np.linspace(-3, 3, clips) if ordered else draw.permutation(np.linspace(-3, 3, clips))
    starts = np.arange(clips, dtype=np.float64)
    spans = np.stack([starts[::each], starts[::each] + each - 0.1], 1).astype(np.float32)
    return NarratedVideo(
        features_CD=(features,),
        times_C2=(np.stack([starts, starts + 1], 1),),
        spans_N2=spans,
        texts=tuple(np.array([10 + draw.integers(9), 20], np.int32) for _ in spans),
    )


def objective(**rule) -> FrameOrder:
    return FrameOrder(rule=SegmentRule(words=WORDS, settings=SegmentSettings(**rule)))


def network() -> Hero:
    torch.manual_seed(0)
    return Hero(hero_config(SETTINGS, WORDS, StoreFacts(clip_dims=(DIM,))))


def test_fifteen_percent_move_and_nothing_is_lost() -> None:
    draw, moved = np.random.default_rng(0), 0
    for _ in range(2000):
        places, order = shuffle(50, draw)
        assert sorted(order) == list(range(50))
        assert set(np.flatnonzero(order != np.arange(50))) <= set(places)
        moved += len(places)
    assert moved / (2000 * 50) == pytest.approx(0.15, abs=0.005)


def test_two_clips_are_the_least() -> None:
    draw = np.random.default_rng(0)
    assert {len(shuffle(3, draw)[0]) for _ in range(5000)} == {2, 3}


def test_targets_name_the_clip_that_stands_at_the_place() -> None:
    example = objective().example(Sample(key=0, video=video(np.random.default_rng(1))), np.random.default_rng(2))
    batch = objective().collate([example, example])
    count = len(example.clips_FD)
    targets = batch.targets
    shown = batch.inputs.clips.features_CD[targets.order_F][targets.rows_M]
    base = (targets.rows_M // count) * count
    assert torch.equal(shown, batch.inputs.clips.features_CD[base + targets.places_M])
    assert batch.count == len(targets.rows_M) == 2 * len(example.moved_M)


def test_clips_of_segments_are_those_of_the_video() -> None:
    example = objective().example(Sample(key=0, video=video(np.random.default_rng(1))), np.random.default_rng(5))
    segments = np.concatenate([segment.clips_CD for segment in example.segments])
    assert np.array_equal(segments, example.clips_FD[example.rows_C])


def test_no_more_clips_than_there_are_places() -> None:
    long = video(np.random.default_rng(1), clips=30)
    for seed in range(20):
        example = objective(max_clips=7).example(Sample(key=0, video=long), np.random.default_rng(seed))
        assert 3 <= len(example.clips_FD) <= 7
    alone = replace(long, spans_N2=np.array([[0, 29.5]], np.float32), texts=long.texts[:1])
    assert len(objective(max_clips=7).example(Sample(key=0, video=alone), np.random.default_rng(0)).clips_FD) == 7


def test_videos_do_not_see_each_other() -> None:
    draws = [Sample(key=number, video=video(np.random.default_rng(number))) for number in range(3)]
    task, model = objective(), network().eval()
    examples = [task.example(sample, np.random.default_rng(sample.key)) for sample in draws]
    together = task.loss(model, task.collate(examples)).sum
    alone = sum(task.loss(model, task.collate([example])).sum for example in examples)
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)


def test_texts_reach_the_places() -> None:
    sample = Sample(key=0, video=video(np.random.default_rng(1)))
    task, model = objective(), network().eval()
    example = task.example(sample, np.random.default_rng(2))
    other = [replace(segment, text_ids_P=np.array([2, 30, 31, 3])) for segment in example.segments]
    losses = [task.loss(model, task.collate([one])).sum.item() for one in (example, replace(example, segments=other))]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("ordered", [True, False])
def test_order_is_learned_from_clips_that_show_it_and_from_no_others(ordered: bool) -> None:
    """On videos never seen. One clip of those that are shuffled comes back to its place on average: that is chance.
    Segments of one clip, since the place of a clip in its segment tells of its order too.
    """
    draw = np.random.default_rng(3)
    task, model = objective(), network()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)

    def batch(count: int, seed: int):
        numbers = range(seed, seed + count)
        samples = [Sample(key=0, video=video(draw, ordered=ordered, each=1)) for _ in numbers]
        return task.collate(
            [task.example(sample, np.random.default_rng(seed)) for sample, seed in zip(samples, numbers, strict=True)]
        )

    for step in range(400):
        found = batch(16, 16 * step)
        (task.loss(model, found).sum / found.count).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        held_out = batch(200, 10**6)
        accuracy = float(task.loss(model.eval(), held_out).parts["accuracy"]) / held_out.count
    targets = held_out.targets
    chance = float((targets.order_F[targets.rows_M] == targets.rows_M).sum()) / held_out.count
    assert accuracy > chance + 0.3 if ordered else accuracy < chance + 0.1
