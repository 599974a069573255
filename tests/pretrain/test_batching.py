"""Token batches against UNITER's sampler, and the purity that resuming rests on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlprep.errors import SettingsError
from vlprep.pretrain.batching import Batches, BatchSettings, ObjectiveSchedule, token_batches

RNG = np.random.default_rng(0)
LENGTHS = np.clip(RNG.normal(52, 20, 3000), 14, 118).astype(np.int64)


@pytest.mark.parametrize("policy", ["bucket", "batch"])
def test_published_policy(golden: Path, policy: str) -> None:
    cases = json.loads((golden / "pretraining/token_batches.json").read_text())["cases"]
    assert len(cases) >= 6
    for case in cases:
        lengths = np.array(case["lengths"])
        settings = BatchSettings(
            tokens=case["token_budget"],
            policy=policy,
            bucket_size=case["bucket_size"],
            multiple=case["size_multiple"],
            drop_last=case["drop_last"],
        )
        batches = token_batches(np.arange(len(lengths)), lengths, settings)
        expected = case[f"{policy}_policy"]["batches"]
        assert [batch.tolist() for batch in batches] == expected, case["name"]


def test_packed_fills_the_budget_and_the_published_sampler_does_not() -> None:
    fills = {
        policy: Batches(
            LENGTHS, BatchSettings(tokens=3072, policy=policy, multiple=multiple), seed=1, group_size=1
        ).fill_rate()
        for policy, multiple in (("packed", 1), ("batch", 8), ("bucket", 8))
    }
    assert fills["packed"] > 0.97
    assert 0.85 < fills["batch"] < 0.97
    assert fills["bucket"] < 0.5


def test_an_epoch_holds_every_sample_and_no_batch_overflows() -> None:
    settings = BatchSettings(tokens=2000)
    batches = token_batches(RNG.permutation(3000), LENGTHS, settings)
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
    assert max(LENGTHS[batch].sum() for batch in batches) <= 2000


def test_groups_are_pure_and_alike_in_length() -> None:
    def make() -> Batches:
        return Batches(LENGTHS, BatchSettings(tokens=2000), seed=3, group_size=4)

    ours, fresh = make(), make()
    first = [ours.group(number) for number in range(60)]
    for number in (59, 3, 40):
        epoch, batches = fresh.group(number)
        assert epoch == first[number][0]
        for one, other in zip(batches, first[number][1], strict=True):
            np.testing.assert_array_equal(one, other)
    assert {epoch for epoch, _ in first} >= {0, 1}
    spread = [np.ptp([LENGTHS[batch].mean() for batch in batches]) for _, batches in first]
    assert np.median(spread) < 4
    assert all(len(batches) == 4 for _, batches in first)


def test_epochs_and_seeds_differ() -> None:
    batches = Batches(LENGTHS, BatchSettings(tokens=2000), seed=3, group_size=1)
    other = Batches(LENGTHS, BatchSettings(tokens=2000), seed=4, group_size=1)
    assert batches.group(0)[1][0].tolist() != other.group(0)[1][0].tolist()
    per_epoch = batches._starts[1]
    assert batches.group(0)[1][0].tolist() != batches.group(per_epoch)[1][0].tolist()


def test_the_objective_of_a_step() -> None:
    schedule = ObjectiveSchedule((2.0, 1.0, 1.0), seed=5)
    met = [schedule.at(step) for step in range(10000)]
    chosen = np.array([objective for objective, _ in met])
    assert np.bincount(chosen) / 10000 == pytest.approx([0.5, 0.25, 0.25], abs=0.02)
    for objective in range(3):
        numbers = [number for drawn, number in met if drawn == objective]
        assert numbers == list(range(len(numbers)))
    fresh = ObjectiveSchedule((2.0, 1.0, 1.0), seed=5)
    assert [fresh.at(step) for step in (9999, 0, 4096)] == [met[9999], met[0], met[4096]]


def test_a_budget_too_small_says_so() -> None:
    with pytest.raises(SettingsError, match="--tokens-per-batch 50"):
        token_batches(np.arange(3), np.array([20, 60, 30]), BatchSettings(tokens=50))
    with pytest.raises(SettingsError, match="no sample"):
        Batches(np.array([], np.int64), BatchSettings(), seed=0, group_size=1)


def test_batches_of_so_many_samples_leave_out_what_is_over():
    settings = BatchSettings(samples=4)
    lengths = np.ones(10, int)
    batches = token_batches(np.arange(10), lengths, settings)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [len(batch) for batch in token_batches(np.arange(3), lengths, settings)] == [3]
    assert [len(batch) for batch in token_batches(np.arange(4), lengths, settings)] == [4]
    made = Batches(lengths, settings, seed=0, group_size=1)
    seen = {number for group in range(20) for number in made.group(group)[1][0].tolist()}
    assert seen == set(range(10))
    assert made.fill_rate() == 1


def test_what_fills_no_batch_is_an_error_and_no_endless_search() -> None:
    lengths = np.full(3, 5)
    batches = Batches(lengths, BatchSettings(tokens=100, drop_last=True), seed=0, group_size=1)
    with pytest.raises(SettingsError, match="do not fill one batch"):
        batches.group(0)


@pytest.mark.parametrize("settings", [{"tokens": 0}, {"samples": -3}, {"multiple": 0}, {"bucket_size": 0}])
def test_impossible_sizes_are_refused(settings) -> None:
    with pytest.raises(SettingsError, match="batches"):
        BatchSettings(**settings)
