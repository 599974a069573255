"""Validation with fixed batches and masks, with what is seen and with what another sample saw.

The second figure is the one to compare with: where the model does as well with another image, it does not look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from vlprep.pretrain.base import Loss, MicroBatch, Sample, count_of, to_device
from vlprep.pretrain.batching import Ints
from vlprep.pretrain.loader import VALIDATION_EPOCH, Stream, pairs
from vlprep.pretrain.masking import generator
from vlprep.pretrain.trainer import PretrainStep

WORD_OBJECTIVES = ("mlm", "vlp")
"""Objectives whose targets are words, so that it is the image that is exchanged."""
WITH_MASKED_WORDS = ("lxmert", "oscar", "univl", "vilbert")
"""Those that train them among other tasks, as their term `mlm`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """Figures of the held-out samples after so many steps."""

    step: int
    figures: Mapping[str, float]
    """`mlm/loss`, `mlm/accuracy`, `itm/auc`, …; `mlm/accuracy without` is with another sample's image or video."""


def validate(
    module: PretrainStep, streams: Mapping[str, Stream], step: int, device: torch.device, *, most_batches: int
) -> Validated:
    """Run the validation streams without gradient."""
    module.eval()
    figures: dict[str, float] = {}
    with torch.no_grad():
        for name, stream in streams.items():
            batches = _fixed_batches(stream, most_batches)
            figures |= _figures(module, name, (stream.make(batch, VALIDATION_EPOCH) for batch in batches), device)
            # contrastive objectives compare with others by themselves
            if not pairs(stream.objective) and "video" not in stream.objective.needs():
                blind = (_with_others_view(stream, batch) for batch in batches)
                without = _figures(module, name, blind, device)
                figures |= {f"{key} without": value for key, value in without.items()}
    return Validated(step=step, figures=figures)


def auc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Area under the ROC curve: the chance that a match scores above a mismatch, ties counting half."""
    positive, negative = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.sum() / (2 * len(positive) * len(negative)))


def _fixed_batches(stream: Stream, most: int) -> list[Ints]:
    batches: list[Ints] = []
    epoch = group = 0
    while len(batches) < most:
        epoch, micro_batches = stream.batches.group(group)
        if epoch > 0:
            break
        batches += [stream.samples[batch] for batch in micro_batches]
        group += 1
    return batches[:most]


def _with_others_view(stream: Stream, batch: Ints) -> MicroBatch:
    """The same targets and masks: of words, with another's image or video; of what is seen, with another's text."""
    examples = []
    for number in batch.tolist():
        sample = stream.corpus.sample(number)
        other = stream.corpus.other(number, stream.samples, generator(stream.seed, VALIDATION_EPOCH, number, "without"))
        draw = generator(stream.seed, VALIDATION_EPOCH, number, stream.objective.name)
        examples.append(stream.objective.example(_swapped(sample, other, stream.objective.name), draw, None))
    return stream.objective.collate(examples)


def _swapped(sample: Sample, other: Sample, objective: str) -> Sample:
    if objective in WORD_OBJECTIVES:
        return replace(sample, regions=other.regions, visual_tokens=other.visual_tokens)
    return replace(sample, text_ids=other.text_ids)


def _figures(module: PretrainStep, name: str, batches: Iterable[MicroBatch], device: torch.device) -> dict[str, float]:
    """Batches come one by one: all of them may be more than fits into memory."""
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    terms: set[str] = set()
    scores, labels = [], []
    for batch in batches:
        moved = to_device(batch, device)
        loss: Loss = module(moved)
        terms |= loss.terms.keys()
        counts.update(batch.counts)
        sums.update({part: float(value) for part, value in {"": loss.sum, **loss.terms, **loss.parts}.items()})
        scorer = getattr(module.objectives[name], "scores", None)
        labels_B = getattr(batch.targets, "labels_B", None)  # CBT's batches have no wrong pairs of their own
        if scorer is not None and labels_B is not None:
            scores.append(scorer(module.model, moved.inputs).double().cpu().numpy())
            labels.append(labels_B.numpy())
    means = {part: value / count_of(part, counts) for part, value in sums.items()}
    figures = {"loss": sum(means[term] for term in ("", *sorted(terms)))}
    figures |= {part: value for part, value in means.items() if part}
    if scores:
        figures["auc"] = auc(np.concatenate(scores), np.concatenate(labels))
    return {f"{name}/{key}": value for key, value in figures.items()}
