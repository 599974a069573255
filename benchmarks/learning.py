"""Does it learn? Rendered scenes and moving scenes through the real pipeline, then what the models know.

    python benchmarks/learning.py           under 10 minutes on 2 cores
    python benchmarks/learning.py --quick   a third of the data and steps; the figures are lower

Images: scenes -> `demo` detector -> tokens of the captions -> `uniter-demo`, all four tasks of UNITER. Videos: moving
scenes -> an untrained S3D -> visual tokens -> `videobert-demo`. All figures are of images and videos that were held
out, each with what belongs to it, with what belongs to another, with nothing, and by a guess that knows no model.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import print_table, save

from vlprep.cluster.train import TrainSettings
from vlprep.media.scenes import COLOURS, SHAPES, write_coco_folder
from vlprep.media.scenes.videos import write_howto_folder
from vlprep.pretrain.base import Sample
from vlprep.pretrain.masking import generator
from vlprep.pretrain.objectives.mlm import MaskedLanguage
from vlprep.pretrain.objectives.regions import RegionDistributions
from vlprep.pretrain.objectives.video import MaskedVisualTokens
from vlprep.pretrain.packing import Example, pack, text_slots
from vlprep.pretrain.recipe import load_recipe, with_settings
from vlprep.stages.cluster_video import ClusterSettings, assign_tokens, find_or_train
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.extract_video import EncoderChoice, VideoSettings, extract_video
from vlprep.stages.pretrain import pretrain
from vlprep.stages.run import RunSettings
from vlprep.stages.tokenize_text import open_store_tokenizer, tokenize_text
from vlprep.stages.trained import Trained, open_trained

_AT_ONCE = 256
"""Sequences scored together."""
S3D = EncoderChoice(name="s3d", weights="random:0", overrides={"fps": 10, "clip_frames": 15, "resize": 32, "crop": 32})
"""VideoBERT's clips of 1.5 seconds, at half its rate and small."""
VOCABULARY = TrainSettings(branching=8, depth=2)


@dataclass(frozen=True, slots=True)
class Size:
    images: int
    image_steps: int
    videos: int
    video_steps: int


FULL = Size(images=1200, image_steps=6000, videos=240, video_steps=2400)
QUICK = Size(images=400, image_steps=1500, videos=80, video_steps=800)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One figure under four conditions."""

    own: float
    chance: float
    """The best guess without a model."""
    other: float | None = None
    """With another's image, text or narration."""
    without: float | None = None
    """With none."""
    tried: int


def learn_images(folder: Path, size: Size) -> dict[str, Any]:
    """Train on scenes; what the model makes of held-out ones."""
    began = time.perf_counter()
    write_coco_folder(folder, size.images)
    extract_regions(folder, RegionSettings(detector="demo"), RunSettings())
    tokenize_text(folder, "train:400")
    trained, figures = train(folder, "uniter-demo", size.image_steps)
    plural = {f"{shape}{'es' if shape.endswith('s') else 's'}": shape for shape in SHAPES}
    pairs = trained.usable_for(trained.objectives["itm"])
    told = {
        "masked colour words": words_told(trained, folder, {colour: colour for colour in COLOURS}),
        "masked shape words": words_told(trained, folder, {**{shape: shape for shape in SHAPES}, **plural}),
        "image-text matching, AUC": Told(own=figures["itm/auc"], chance=0.5, tried=len(pairs)),
        "masked regions, KL": regions_told(trained),
    }
    return summary(told, figures, began)


def learn_videos(folder: Path, size: Size) -> dict[str, Any]:
    """Train on moving scenes; how well held-out visual tokens are told, with narration and without."""
    began = time.perf_counter()
    write_howto_folder(folder, size.videos)
    extract_video(folder, VideoSettings(encoders=(S3D,)), RunSettings())
    clusters = ClusterSettings(training=VOCABULARY)
    assign_tokens(folder, clusters, find_or_train(folder, clusters, RunSettings()), RunSettings())
    tokenize_text(folder, "train:400")
    trained, figures = train(folder, "videobert-demo", size.video_steps)
    return summary({"masked visual tokens": tokens_told(trained)}, figures, began)


def summary(told: Mapping[str, Told], figures: Mapping[str, float], began: float) -> dict[str, Any]:
    minutes = (time.perf_counter() - began) / 60
    return {
        "told": {name: asdict(entry) for name, entry in told.items()},
        "last validation": dict(figures),
        "minutes": minutes,
    }


def train(folder: Path, recipe: str, steps: int) -> tuple[Trained, Mapping[str, float]]:
    """The trained model with what it has not seen, and the figures of its last validation."""
    report = pretrain([folder], with_settings(load_recipe(recipe), [f"train.steps={steps}"]), device="cpu")
    assert report is not None  # no torchrun here
    return open_trained(report.folder, folder), report.figures


@torch.no_grad()
def words_told(trained: Trained, folder: Path, names: Mapping[str, str]) -> Told:
    """Every one of these words in the held-out captions, masked by itself. `names`: the word, and what it says.

    The guess from the text alone is the best there can be: kinds of a scene differ in colour and in shape, so what the
    caption says elsewhere is ruled out, and `a` or `an` rules out colours.
    """
    tokenizer, objective = open_store_tokenizer(folder / "vlprep" / "text"), trained.objectives["mlm"]
    assert isinstance(objective, MaskedLanguage)
    ids_of = {word: ids[0] for word, ids in zip(names, tokenizer.encode(list(names)), strict=True) if len(ids) == 1}
    said_by = {piece: names[word] for word, piece in ids_of.items()}
    articles = {ids[0]: article for article, ids in zip(("a", "an"), tokenizer.encode(["a", "an"]), strict=True)}
    own: list[Example] = []
    exchanged: list[Example] = []
    places, truth, chance = [], [], []
    for sample, other in held_out_pairs(trained):
        ids = objective.rule.text(sample)
        for place in np.flatnonzero(np.isin(ids, list(said_by))).tolist():
            masked = ids.copy()
            masked[place] = objective.rule.words.mask
            own.append(objective.rule.sequence(masked, sample))
            exchanged.append(objective.rule.sequence(masked, other))
            places.append(np.array([place + 1]))  # [CLS] comes first
            truth.append(said_by[int(ids[place])])
            elsewhere = {said_by.get(piece) for piece in np.delete(ids, place).tolist()}
            possible = set(names.values()) - elsewhere
            if article := articles.get(int(ids[place - 1])):
                possible = {name for name in possible if (name[0] in "aeiou") == (article == "an")}
            chance.append(1 / len(possible))

    def right(sequences: list[Example]) -> float:
        guesses: list[str | None] = []
        for start in range(0, len(sequences), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            states = trained.model.encode(pack(sequences[some]))[text_slots(sequences[some], places[some])]
            guesses += map(said_by.get, trained.model.word_logits(states).argmax(1).tolist())
        return float(np.mean([guess == name for guess, name in zip(guesses, truth, strict=True)]))

    return Told(own=right(own), other=right(exchanged), chance=float(np.mean(chance)), tried=len(truth))


def regions_told(trained: Trained) -> Told:
    """KL from the detector's distribution of masked regions; the guess is the mean distribution of those that train."""
    objective = trained.objectives["mrc-kl"]
    assert isinstance(objective, RegionDistributions)
    pairs = list(held_out_pairs(trained))
    usual_W = target_distributions(objective, seen_in_training(trained)).mean(0)
    masked_MW = target_distributions(objective, (sample for sample, _ in pairs))
    surprise_MW = torch.special.xlogy(masked_MW, masked_MW) - masked_MW * usual_W.clamp(min=1e-9).log()
    return Told(
        own=measured(trained, objective, (sample for sample, _ in pairs))["loss"],
        other=measured(trained, objective, (replace(one, text_ids=other.text_ids) for one, other in pairs))["loss"],
        without=measured(trained, objective, (replace(one, text_ids=np.empty(0, np.int32)) for one, _ in pairs))[
            "loss"
        ],
        chance=float(surprise_MW.sum(1).mean()),
        tried=len(masked_MW),
    )


def tokens_told(trained: Trained) -> Told:
    """Accuracy on masked visual tokens; the guess is the commonest token of those that train."""
    objective = trained.objectives["mfm"]
    assert isinstance(objective, MaskedVisualTokens)
    narrated, alone = replace(objective, video_only=0.0), replace(objective, video_only=1.0)
    pairs = list(held_out_pairs(trained))
    commonest = Counter(token for sample in seen_in_training(trained) for token in sample.visual_tokens.tolist())
    shown = np.concatenate([sample.visual_tokens for sample, _ in pairs])
    own = measured(trained, narrated, (sample for sample, _ in pairs))
    exchanged = (replace(one, text_ids=other.text_ids) for one, other in pairs)
    return Told(
        own=own["accuracy"],
        other=measured(trained, narrated, exchanged)["accuracy"],
        without=measured(trained, alone, (sample for sample, _ in pairs))["accuracy"],
        chance=float(np.mean(shown == commonest.most_common(1)[0][0])),
        tried=int(own["count"]),
    )


@torch.no_grad()
def measured(
    trained: Trained, objective: RegionDistributions | MaskedVisualTokens, samples: Iterable[Sample]
) -> dict[str, float]:
    """`loss`, `accuracy`, … over samples, whose masks depend on the sample only, and the `count` of masked things."""
    examples = [objective.example(sample, generator(0, 0, sample.key, "learning")) for sample in samples]
    sums: Counter[str] = Counter()
    for start in range(0, len(examples), _AT_ONCE):
        batch = objective.collate(examples[start : start + _AT_ONCE])
        loss = objective.loss(trained.model, batch)
        sums.update({"loss": float(loss.sum), "count": batch.count})
        sums.update({name: float(part) for name, part in loss.parts.items()})
    return {name: value if name == "count" else value / sums["count"] for name, value in sums.items()}


def target_distributions(objective: RegionDistributions, samples: Iterable[Sample]) -> torch.Tensor:
    """(M, W) of the regions that `measured` masks."""
    examples = [objective.example(sample, generator(0, 0, sample.key, "learning")) for sample in samples]
    values_MW: torch.Tensor = objective.collate(examples).targets.values_MX
    return values_MW.float()


def held_out_pairs(trained: Trained) -> Iterable[tuple[Sample, Sample]]:
    """Each held-out sample, and one of another held-out image or video."""
    for number in trained.samples.tolist():
        draw = generator(0, 0, number, "exchanged")
        yield trained.corpus.sample(number), trained.corpus.other(number, trained.samples, draw)


def seen_in_training(trained: Trained) -> Iterable[Sample]:
    return map(trained.corpus.sample, np.setdiff1d(np.arange(len(trained.corpus)), trained.samples).tolist())


_WANTED = {
    "masked colour words": ">= 0.9, chance with another's",
    "masked shape words": ">= 0.9, chance with another's",
    "image-text matching, AUC": ">= 0.95",
    "masked regions, KL": "below all others",
    "masked visual tokens": "above all others",
}


def show(told: Mapping[str, Mapping[str, Any]]) -> None:
    rows: list[Sequence[object]] = []
    for name, entry in told.items():
        cells = ("" if entry[key] is None else entry[key] for key in ("own", "other", "without", "chance", "tried"))
        rows.append((name, *cells, _WANTED[name]))
    header = ("held out", "with its own", "another's", "none", "guess", "tried", "wanted")
    print_table("What was learned", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="Where datasets and runs are kept; a temporary folder by default.")
    chosen = parser.parse_args()
    size = QUICK if chosen.quick else FULL
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vlprep-learning-") as scratch:
        folder = chosen.folder or Path(scratch)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context, torch.set_num_threads, (1,)) as pool:
            images = pool.submit(learn_images, folder / "scenes", size)
            videos = pool.submit(learn_videos, folder / "moving", size)
            result = {"images": images.result(), "videos": videos.result()}
    show(result["images"]["told"] | result["videos"]["told"])
    minutes, cpu = (time.perf_counter() - began) / 60, sum(os.times()[:4]) / 60
    print(f"{minutes:.1f} minutes, {cpu:.1f} of a core's, all processes together")
    save("learning", {**result, "minutes": minutes, "cpu minutes": cpu}, Path(__file__).parent / "results")


if __name__ == "__main__":
    main()
