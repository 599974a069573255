"""`evaluate`: what a trained model knows of a dataset: does a text belong to a picture, which picture belongs to a
text, which word is hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Matcher, NarratedVideo, Objective, Sample
from vlprep.pretrain.batching import Ints
from vlprep.pretrain.dual import DualObjective, by_segment, narrated_clips
from vlprep.pretrain.dual_scores import embed_clips, embed_texts
from vlprep.pretrain.loader import Stream
from vlprep.pretrain.narration import Span
from vlprep.pretrain.objectives.catalogue import rankers
from vlprep.pretrain.pair_scores import pair_scores
from vlprep.pretrain.retrieval import Retrieval, measure
from vlprep.pretrain.trainer import PretrainStep
from vlprep.pretrain.validate import WITH_MASKED_WORDS, WORD_OBJECTIVES, validate
from vlprep.stages.trained import Trained, dual_encoder, open_trained

Task = Literal["match", "mlm"]

_EVERYTHING = 1_000_000_000
"""Micro-batches: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was asked, of how much."""

    checkpoint: Path
    samples: int
    held_out: bool
    """Whether the dataset was trained on, so that only its held-out items were asked about."""
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalReport:
    checkpoint: Path
    held_out: bool
    texts: int
    candidates: int
    seen: Literal["image", "video"]
    left_out: Sequence[str]
    """Why, for each segment whose file turned out to be of no use."""
    text_to_seen: Retrieval
    seen_to_text: Retrieval


def evaluate(checkpoint: Path, dataset: Path, task: Task, *, device: str = "cpu") -> Evaluation:
    """`match`: accuracy and AUC of telling pairs from mismatches. `mlm`: hidden words, with what is seen and with
    another sample's. Masks and mismatches are always the same ones.

    Raises `SettingsError` where the model was not trained for that.
    """
    trained = open_trained(checkpoint, dataset, device=device)
    asked = {name: objective for name, objective in trained.objectives.items() if _answers(objective, task)}
    if not asked:
        raise SettingsError(
            f"{checkpoint} was trained with {'+'.join(trained.objectives)}, none of which answers evaluate {task}"
        )
    streams = {
        name: Stream(trained.corpus, trained.usable_for(objective), objective, trained.recipe.batches, 0, 1)
        for name, objective in asked.items()
    }
    module = PretrainStep(trained.model, trained.objectives)
    figures = validate(module, streams, trained.found.state.step, trained.device, most_batches=_EVERYTHING).figures
    return Evaluation(
        checkpoint=trained.found.checkpoint,
        samples=max(len(stream.samples) for stream in streams.values()),
        held_out=trained.seen_in_training,
        figures={name: value for name, value in figures.items() if _belongs(name, task)},
    )


def evaluate_retrieval(
    checkpoint: Path,
    dataset: Path,
    *,
    most: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    on_text: Callable[[int, int], None] = lambda done, total: None,
) -> RetrievalReport:
    """Rank pictures (or video segments) for texts, and texts for pictures.

    `most` images or segments take part, drawn by `seed`, with all of their texts. An image with several texts counts
    as found by the best of them, as COCO's and Flickr30k's tables do.
    """
    trained = open_trained(checkpoint, dataset, device=device)
    dual = next((objective for objective in trained.objectives.values() if isinstance(objective, DualObjective)), None)
    if dual is not None:
        return _of_segments(trained, dual, most, seed)
    matcher = next((objective for objective in trained.objectives.values() if isinstance(objective, Matcher)), None)
    if matcher is not None:
        return _of_pairs(trained, matcher, most, seed, on_text)
    raise SettingsError(
        f"{checkpoint} was trained with {'+'.join(trained.objectives)}, which cannot rank: it takes one of"
        f" {', '.join(rankers())}"
    )


def _of_segments(trained: Trained, dual: DualObjective, most: int, seed: int) -> RetrievalReport:
    """Narrated segments and what is said in them, as YouCook2's and MSR-VTT's tables pair clips and texts; several
    texts of one segment, or of a whole video, have one candidate.
    """
    told: dict[tuple[int, Span], list[NDArray[np.int32]]] = {}
    for number in trained.usable_for(dual).tolist():
        for ids, span in narrated_clips(trained.corpus.sample(number)):
            told.setdefault((number, span), []).append(ids)
    if len(told) < 2:
        raise SettingsError("ranking needs at least two narrated segments")
    order = np.random.default_rng(seed).permutation(len(told))[:most]
    every = list(told)
    segments = [every[place] for place in np.sort(order)]
    clips = [(_video(trained, number), span) for number, span in segments]
    model = dual_encoder(trained)
    clips_CD, left_out = embed_clips(model, dual, clips, trained.device)
    seen = [segment for place, segment in enumerate(segments) if place not in left_out]
    texts = [(ids, place) for place, segment in enumerate(seen) for ids in told[segment]]
    texts_QD = embed_texts(model, dual, [ids for ids, _ in texts], trained.device)
    right_QC = np.array([place for _, place in texts])[:, None] == np.arange(len(seen))
    return _report(trained, "video", texts_QD @ clips_CD.T, right_QC, [str(error) for error in left_out.values()])


def _video(trained: Trained, number: int) -> NarratedVideo:
    video = trained.corpus.sample(number).video
    assert video is not None  # the objective needs it
    return video


def _of_pairs(
    trained: Trained, matcher: Matcher, most: int, seed: int, on_text: Callable[[int, int], None]
) -> RetrievalReport:
    samples, items = _drawn(trained, matcher, most, seed)
    _, first, candidate_of = np.unique(items, return_index=True, return_inverse=True)
    scores_QC = pair_scores(
        trained.model,
        matcher,
        samples,
        [samples[place] for place in first],
        trained.device,
        on_text=lambda done: on_text(done, len(samples)),
    )
    right_QC = candidate_of[:, None] == np.arange(len(first))
    return _report(trained, "image" if samples[0].regions is not None else "video", scores_QC, right_QC)


def _report(
    trained: Trained,
    seen: Literal["image", "video"],
    scores_QC: NDArray[np.float32],
    right_QC: NDArray[np.bool_],
    left_out: Sequence[str] = (),
) -> RetrievalReport:
    return RetrievalReport(
        checkpoint=trained.found.checkpoint,
        held_out=trained.seen_in_training,
        texts=scores_QC.shape[0],
        candidates=scores_QC.shape[1],
        seen=seen,
        left_out=left_out,
        text_to_seen=measure(scores_QC, right_QC),
        seen_to_text=measure(scores_QC.T, right_QC.T),
    )


def _answers(objective: Objective, task: Task) -> bool:
    if task == "match":
        return isinstance(objective, Matcher)
    return objective.name in WORD_OBJECTIVES or objective.name in WITH_MASKED_WORDS


def _belongs(figure: str, task: Task) -> bool:
    name, _, part = figure.partition("/")
    if task == "match":
        return part in ("accuracy", "auc")
    return name in WORD_OBJECTIVES or part.startswith("mlm")


def _drawn(trained: Trained, matcher: Objective, most: int, seed: int) -> tuple[list[Sample], Ints]:
    """Samples that take part, a narrated video's segments one by one, and the number of the image or segment that
    belongs to each.
    """
    numbers = trained.usable_for(matcher)
    samples = [one for number in numbers.tolist() for one in by_segment(trained.corpus.sample(number))]
    of_images = bool(samples) and samples[0].regions is not None
    items = trained.corpus.items()[numbers] if of_images else np.arange(len(samples))
    every = np.unique(items)
    if len(every) < 2:
        raise SettingsError("ranking needs the texts of at least two images or segments")
    chosen = np.random.default_rng(seed).permutation(every)[:most]
    part = np.flatnonzero(np.isin(items, chosen))
    return [samples[place] for place in part.tolist()], items[part]
