"""Which samples train together: pure functions of (seed, epoch), so that a killed run resumes where it was.

Three policies fill a token budget:

- `packed` (ours, the default): real tokens are counted, since packed sequences have no padding; about 99 % full.
- `batch`: examples times the batch's longest, which is what a padded batch costs; about 96 % full.
- `bucket`: as published. UNITER's sampler never resets the longest length inside a bucket of 8192, so that batches are
  only about 42 % full (data/sampler.py:39-55); for runs that must repeat its batch sizes.

Or each batch has a number of samples (`BatchSettings.samples`), whatever their length.

Batches are made for the whole world and dealt out in *groups* of `group_size` micro-batches (accumulation times
processes), neighbours in length. One optimiser step is one group, so that any split of it over processes trains alike.

Shape suffixes: S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError

Ints = NDArray[np.int64]
Policy = Literal["packed", "batch", "bucket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How samples become batches."""

    tokens: int = 10240
    """Budget of one micro-batch."""
    samples: int = 0
    """So many samples a micro-batch in place of the budget: what contrastive losses, whose negatives are the rest of
    the batch, were published with. What is left over at the end of an epoch waits for the next.
    """
    policy: Policy = "packed"
    bucket_size: int = 8192
    """Samples that are sorted by length together; the pool from which a batch of like lengths is made."""
    multiple: int = 1
    """Examples are added this many at a time (8 in UNITER, for tensor cores)."""
    drop_last: bool = False

    def __post_init__(self) -> None:
        if min(self.tokens, self.bucket_size, self.multiple) < 1 or self.samples < 0:
            raise SettingsError("batches: tokens, bucket_size and multiple are at least 1, samples at least 0")


def token_batches(order_S: Ints, lengths_S: Ints, settings: BatchSettings) -> list[Ints]:
    """Cut samples in this order into batches. `lengths_S` is indexed by sample number.

    Raises:
        SettingsError: One group of `multiple` samples is longer than the budget.
    """
    if settings.samples:
        cuts = range(0, max(1, len(order_S) - settings.samples + 1), settings.samples)
        return [order_S[start : start + settings.samples] for start in cuts]
    batches: list[Ints] = []
    for start in range(0, len(order_S), settings.bucket_size):
        bucket = order_S[start : start + settings.bucket_size]
        bucket = bucket[np.argsort(-lengths_S[bucket], kind="stable")]
        batches += _fill(bucket, lengths_S, settings)
    return batches


def _fill(bucket: Ints, lengths_S: Ints, settings: BatchSettings) -> Iterator[Ints]:
    """Batches of one bucket, whose samples come by descending length."""
    begin, longest, real = 0, 0, 0
    for place in range(0, len(bucket), settings.multiple):
        group = lengths_S[bucket[place : place + settings.multiple]]
        group_longest, group_real = int(group.max()), int(group.sum())
        if (group_real if settings.policy == "packed" else group_longest * settings.multiple) > settings.tokens:
            raise SettingsError(
                f"--tokens-per-batch {settings.tokens} cannot hold {settings.multiple} sequence(s) of {group_longest}"
                " tokens: raise it, or shorten the sequences (max_text, max_regions)"
            )
        longest, real = max(longest, group_longest), real + group_real
        full = real if settings.policy == "packed" else longest * (place - begin + settings.multiple)
        if full > settings.tokens:
            yield bucket[begin:place]
            begin, real = place, group_real
            if settings.policy == "batch":
                longest = group_longest
    if begin < len(bucket) and not settings.drop_last:
        yield bucket[begin:]


class Batches:
    """The endless sequence of groups of one corpus; group number g is always the same samples."""

    def __init__(self, lengths_S: Ints, settings: BatchSettings, *, seed: int, group_size: int) -> None:
        if not len(lengths_S):
            raise SettingsError("no sample is left to train on")
        self.lengths_S, self.settings, self.seed, self.group_size = lengths_S, settings, seed, group_size
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._starts = [0]
        """The first group of each epoch met so far."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Loader processes make the plan anew: it is a function of these."""
        return partial(Batches, seed=self.seed, group_size=self.group_size), (self.lengths_S, self.settings)

    def group(self, number: int) -> tuple[int, list[Ints]]:
        """(epoch, micro-batches) of group `number`."""
        while number >= self._starts[-1]:
            self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return epoch, self._epoch(epoch)[number - self._starts[epoch]]

    def fill_rate(self) -> float:
        """Real tokens (or samples) of the first epoch divided by the budget of its batches."""
        batches = [batch for group in self._epoch(0) for batch in group]
        if self.settings.samples:
            return sum(map(len, batches)) / (len(batches) * self.settings.samples)
        real = sum(int(self.lengths_S[batch].sum()) for batch in batches)
        return real / (len(batches) * self.settings.tokens)

    def padding_saved(self) -> float:
        """The share of a padded loop's tokens that is padding: batches of as many samples, taken at random."""
        groups = self._epoch(0)
        per_batch = max(1, len(self.lengths_S) // sum(len(group) for group in groups))
        shuffled = np.random.default_rng(self.seed).permutation(self.lengths_S)
        shuffled = shuffled[: len(shuffled) // per_batch * per_batch].reshape(-1, per_batch)
        return 1 - float(shuffled.sum() / (shuffled.max(1) * per_batch).sum())

    def _make_epoch(self, epoch: int) -> list[list[Ints]]:
        shuffle = np.random.default_rng([self.seed, epoch])
        order = shuffle.permutation(len(self.lengths_S))
        batches = token_batches(order, self.lengths_S, self.settings)
        if not batches:
            raise SettingsError(
                f"{len(order)} sample(s) do not fill one batch: batches.drop_last = false, or a smaller budget"
            )
        # the last group is filled up with the epoch's first batches: every group has the same size on every rank
        batches += [batches[number % len(batches)] for number in range(-len(batches) % self.group_size)]
        groups = [batches[start : start + self.group_size] for start in range(0, len(batches), self.group_size)]
        return [groups[place] for place in shuffle.permutation(len(groups))]


class ObjectiveSchedule:
    """Which objective each step trains: drawn in proportion to the weights, a pure function of (seed, step)."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._weights, self._seed = tuple(weights), seed
        self._share = np.array(weights, float) / sum(weights)
        self._before = [np.zeros(len(weights), np.int64)]
        """How often each was drawn before each block of steps."""
        self._block = lru_cache(maxsize=2)(self._draw)

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectiveSchedule, (self._weights, self._seed)

    def at(self, step: int) -> tuple[int, int]:
        """(index of the objective, how often it was drawn before this step)."""
        number, place = divmod(step, _BLOCK)
        while len(self._before) <= number:
            counts = np.bincount(self._block(len(self._before) - 1), minlength=len(self._share))
            self._before.append(self._before[-1] + counts)
        block = self._block(number)
        chosen = int(block[place])
        return chosen, int(self._before[number][chosen] + (block[:place] == chosen).sum())

    def _draw(self, block: int) -> Ints:
        return np.random.default_rng([self._seed, 7, block]).choice(len(self._share), size=_BLOCK, p=self._share)


_BLOCK = 4096
