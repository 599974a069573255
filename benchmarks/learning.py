"""Does it learn? Rendered scenes and moving scenes through the real pipeline, then what the models know.

    python benchmarks/learning.py           about 10 minutes on 2 cores
    python benchmarks/learning.py --quick   a third of the data and steps; the figures are lower

Images: scenes -> `demo` detector -> tokens of the captions -> `uniter-demo`. Each colour and shape word of the held-out
captions is masked by itself and told from the picture, or from another one. Videos: moving scenes -> an untrained S3D
-> visual tokens -> `videobert-demo`. All figures are of images and videos that were held out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import print_table, save

from vlprep.cluster.train import TrainSettings
from vlprep.media.scenes import COLOURS, SHAPES, write_coco_folder
from vlprep.media.scenes.videos import write_howto_folder
from vlprep.pretrain.base import Sample
from vlprep.pretrain.checkpoint import read_model
from vlprep.pretrain.loader import Stream
from vlprep.pretrain.masking import generator
from vlprep.pretrain.models.config_file import read_model_config
from vlprep.pretrain.models.kinds import build_model
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import pack, text_slots
from vlprep.pretrain.recipe import Recipe, load_recipe, with_settings
from vlprep.pretrain.setup import Prepared, open_corpora, prepare
from vlprep.pretrain.trainer import PretrainStep
from vlprep.pretrain.validate import validate
from vlprep.stages.cluster_video import ClusterSettings, assign_tokens, find_or_train
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.extract_video import EncoderChoice, VideoSettings, extract_video
from vlprep.stages.pretrain import PretrainReport, data_facts, find_stores, pretrain, read_vocabulary, text_vocabulary
from vlprep.stages.run import RunSettings
from vlprep.stages.tokenize_text import open_store_tokenizer, tokenize_text

_AT_ONCE = 256
"""Captions scored together."""
S3D = EncoderChoice(name="s3d", weights="random:0", overrides={"fps": 10, "clip_frames": 15, "resize": 32, "crop": 32})
"""VideoBERT's clips of 1.5 seconds, at half its rate and small."""
VOCABULARY = TrainSettings(branching=8, depth=2)


@dataclass(frozen=True, slots=True)
class Size:
    images: int
    image_steps: int
    videos: int
    video_steps: int


FULL = Size(images=1200, image_steps=3000, videos=150, video_steps=1500)
QUICK = Size(images=400, image_steps=1200, videos=50, video_steps=500)


def learn_images(folder: Path, size: Size) -> dict[str, Any]:
    """Train on scenes; what the model makes of held-out ones."""
    began = time.process_time()
    write_coco_folder(folder, size.images)
    extract_regions(folder, RegionSettings(detector="demo"), RunSettings())
    tokenize_text(folder, "train:400")
    recipe = with_settings(load_recipe("uniter-demo"), [f"train.steps={size.image_steps}"])
    report = trained(folder, recipe)
    model, prepared = reopen(folder, recipe, report)
    tokenizer = open_store_tokenizer(folder / "vlprep" / "text")
    rule = SequenceRule(words=text_vocabulary([find_stores(folder, recipe)]))
    colours = tokenizer.encode(list(COLOURS))
    shapes = tokenizer.encode([*SHAPES, *(f"{shape}{'es' if shape.endswith('s') else 's'}" for shape in SHAPES)])
    found: dict[str, Any] = {}
    for name, pieces in (("colour", colours), ("shape", shapes)):
        words = {ids[0] for ids in pieces if len(ids) == 1}
        for shuffled in (False, True):
            told, truth = told_words(model, prepared, rule, words, shuffled=shuffled)
            found[f"{name} words{', shuffled' if shuffled else ''}"] = float(np.mean(told == truth))
        found[f"{name} words, commonest"] = Counter(truth.tolist()).most_common(1)[0][1] / len(truth)
        found[f"{name} words tried"] = len(truth)
    return found | {"figures": dict(report.figures), "cpu seconds": time.process_time() - began}


def learn_videos(folder: Path, size: Size) -> dict[str, Any]:
    """Train on moving scenes; how well held-out visual tokens are told, with narration and without."""
    began = time.process_time()
    write_howto_folder(folder, size.videos)
    extract_video(folder, VideoSettings(encoders=(S3D,)), RunSettings())
    clusters = ClusterSettings(training=VOCABULARY)
    assign_tokens(folder, clusters, find_or_train(folder, clusters, RunSettings()), RunSettings())
    tokenize_text(folder, "train:400")
    recipe = with_settings(load_recipe("videobert-demo"), [f"train.steps={size.video_steps}"])
    report = trained(folder, recipe)
    model, prepared = reopen(folder, recipe, report)
    held_out = prepared.validation["mfm"]
    counts = Counter(token for sample in samples(prepared.train["mfm"]) for token in sample.visual_tokens.tolist())
    commonest = counts.most_common(1)[0][0]
    shown = np.concatenate([sample.visual_tokens for sample in samples(held_out)])
    found: dict[str, Any] = {"commonest token": float(np.mean(shown == commonest)), "tokens in use": len(counts)}
    for name, alone in (("with narration", 0.0), ("without narration", 1.0)):
        objective = replace(held_out.objective, video_only=alone)
        stream = Stream(prepared.corpus, held_out.samples, objective, recipe.batches, recipe.train.seed, 1)
        module = PretrainStep(model, {"mfm": objective})
        figures = validate(module, {"mfm": stream}, 0, torch.device("cpu"), most_batches=1000).figures
        found[f"visual tokens, {name}"] = figures["mfm/accuracy"]
    return found | {"figures": dict(report.figures), "cpu seconds": time.process_time() - began}


def trained(folder: Path, recipe: Recipe) -> PretrainReport:
    report = pretrain([folder], recipe, device="cpu")
    assert report is not None  # no torchrun here
    return report


def reopen(folder: Path, recipe: Recipe, report: PretrainReport) -> tuple[SingleStream, Prepared]:
    """The trained model, and the data split as it was."""
    stores = [find_stores(folder, recipe)]
    corpora = open_corpora(stores, recipe)
    prepared = prepare(recipe, corpora, text_vocabulary(stores), data_facts(corpora, read_vocabulary(stores)), 1)
    model = build_model(read_model_config(report.folder))
    model.load_state_dict(read_model(report.checkpoint))
    assert isinstance(model, SingleStream)
    return model.eval(), prepared


def samples(stream: Stream) -> Iterator[Sample]:
    return (stream.corpus.sample(number) for number in stream.samples.tolist())


@torch.no_grad()
def told_words(
    model: SingleStream, prepared: Prepared, rule: SequenceRule, words: Collection[int], *, shuffled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(told, truth): every one of `words` in the held-out captions masked by itself, and what the model takes it for.

    With `shuffled`, the caption is shown with the regions of another image.
    """
    stream = prepared.validation["mlm"]
    sequences, positions, truth = [], [], []
    for number in stream.samples.tolist():
        sample = stream.corpus.sample(number)
        draw = generator(0, 0, number, "shuffled")
        seen = stream.corpus.other(number, stream.samples, draw) if shuffled else sample
        ids = rule.text(sample)
        for place in np.flatnonzero(np.isin(ids, list(words))).tolist():
            masked = ids.copy()
            masked[place] = rule.words.mask
            sequences.append(rule.sequence(masked, seen))
            positions.append(np.array([place + 1]))  # [CLS] comes first
            truth.append(int(ids[place]))
    told = []
    for start in range(0, len(sequences), _AT_ONCE):
        chosen = slice(start, start + _AT_ONCE)
        states = model.encode(pack(sequences[chosen]))[text_slots(sequences[chosen], positions[chosen])]
        told.append(model.word_logits(states).argmax(1).numpy())
    return np.concatenate(told), np.array(truth)


def show(images: dict[str, Any], videos: dict[str, Any]) -> None:
    figures = images["figures"]
    rows: list[Sequence[object]] = [
        (
            f"masked {name} words",
            images[f"{name} words"],
            images[f"{name} words, shuffled"],
            images[f"{name} words, commonest"],
            ">= 0.9",
        )
        for name in ("colour", "shape")
    ]
    rows += [
        ("image-text matching, AUC", figures["itm/auc"], "", 0.5, ">= 0.95"),
        ("masked region, KL", figures["mrc-kl/loss"], figures["mrc-kl/loss without"], "", "less than other"),
        (
            "masked visual tokens",
            videos["visual tokens, with narration"],
            videos["visual tokens, without narration"],
            videos["commonest token"],
            "falling",
        ),
    ]
    print_table("What was learned", ("held out", "seen", "other / none", "chance", "wanted"), rows)
    for name, found in (("images", images), ("videos", videos)):
        print(f"{name}: {found['cpu seconds']:.0f} CPU seconds without the extraction's own processes")


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
    show(result["images"], result["videos"])
    save("learning", {**result, "minutes": (time.perf_counter() - began) / 60}, Path(__file__).parent / "results")


if __name__ == "__main__":
    main()
