"""MIL-NCE end to end: clips are decoded in loaders, S3D-G learns, and files of no use are left out and counted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from pretrain.stores import text, write
from pretrain.test_milnce import CPU, trainer

from vlprep.errors import VlprepError
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.clip_reader import ClipSettings
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.distributed import World
from vlprep.pretrain.dual import narrated_clips
from vlprep.pretrain.dual_scores import embed_clips, embed_texts
from vlprep.pretrain.file_corpus import FileCorpus
from vlprep.pretrain.models.milnce import MilNceSettings
from vlprep.pretrain.objectives.milnce import EndToEndSettings
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.settings import OptimiserSettings, TrainSettings
from vlprep.pretrain.trainer import Logged
from vlprep.shards.schema import text_schema

COLOURS = ((250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 20), (20, 250, 250), (250, 20, 250))
CLIPS = ClipSettings(frames=4, side=32, short_side=36, windows=1)
RECIPE = Recipe(
    model=MilNceSettings(word_dim=16, hidden=64, joint=32, freeze_words=False, trunk="plain"),
    batches=BatchSettings(samples=len(COLOURS)),
    objectives={"milnce-end-to-end": EndToEndSettings(candidates=1, max_words=4, clips=CLIPS)},
    optimiser=OptimiserSettings(lr=3e-3, warmup=0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, clip=0.0),
    train=TrainSettings(steps=30, log_every=10, save_every=30, loaders=1, validation_share=0.0, seed=3),
)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> DatasetStores:
    """Videos of one colour each, 6 seconds, twice narrated by the colour's word; one file is cut, one is missing."""
    folder = tmp_path_factory.mktemp("coloured")
    texts = {}
    for number, colour in enumerate(COLOURS):
        name = f"{number}.mp4"
        write_colour(folder / name, colour)
        for start in (0.0, 3.0):
            texts[f"{name}#{start}"] = text(name, [10 + number], start=start, end=start + 3)
    (folder / "cut.mp4").write_bytes((folder / "0.mp4").read_bytes()[:700])
    texts["cut.mp4#0"] = text("cut.mp4", [20], start=0.0, end=3.0)
    texts["gone.mp4#0"] = text("gone.mp4", [21], start=0.0, end=3.0)
    texts["0.mp4#all"] = text("0.mp4", [22])
    return DatasetStores(text=write(folder / "words", text_schema(), "text", texts, part_size=100), videos=folder)


def write_colour(path: Path, colour: tuple[int, int, int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.full((48, 64, 3), colour, np.uint8)
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_videos_are_files_with_their_narration(coloured: DatasetStores) -> None:
    corpus = FileCorpus(coloured, CorpusSettings())
    assert len(corpus) == len(COLOURS) + 1
    assert +corpus.left_out == {"videos without a file": 1, "texts without times": 1}
    sample = corpus.sample(2)
    assert sample.video is not None
    assert sample.video.file == coloured.videos / "2.mp4"
    np.testing.assert_array_equal(sample.video.spans_N2, [[0, 3], [3, 6]])
    assert [ids.tolist() for ids in sample.video.texts] == [[12], [12]]
    assert corpus.text_rows(2).shape == (2,)
    assert corpus.num_items == len(COLOURS) + 2
    assert len(set(corpus.items().tolist())) == len(corpus)


def test_s3d_learns_colours_from_the_files(coloured: DatasetStores, tmp_path: Path) -> None:
    made = trainer(coloured, RECIPE, tmp_path, World())
    before = [value.clone() for value in made.model.trunk.parameters()]
    logged: list[Logged] = []
    made.run(lambda event: logged.append(event) if isinstance(event, Logged) else None)
    losses = [entry.losses["milnce-end-to-end"] for entry in logged]
    assert losses[-1] < losses[0] / 2
    assert sum(entry.left_out for entry in logged) > 0  # the cut file
    moved = [not torch.equal(value, now) for value, now in zip(before, made.model.trunk.parameters(), strict=True)]
    assert all(moved)
    task, corpus = made.batches.streams[0].objective, made.batches.streams[0].corpus
    videos = [sample.video for sample in map(corpus.sample, range(len(COLOURS)))]
    clips = [(video, (0.0, 3.0)) for video in videos]
    model = made.model.train()  # with the statistics of the batch, since 30 steps leave little of running ones
    scores = (
        embed_texts(model, task, [video.texts[0] for video in videos], CPU) @ embed_clips(model, task, clips, CPU)[0].T
    )
    assert (scores.argmax(0) == np.arange(len(COLOURS))).mean() >= 5 / 6
    assert len(narrated_clips(corpus.sample(0))) == 2


def test_the_same_step_decodes_the_same_clips_in_any_process(coloured: DatasetStores, tmp_path: Path) -> None:
    batches = [trainer(coloured, RECIPE, tmp_path, World()).batches[3, 0] for _ in range(2)]
    assert torch.equal(batches[0].targets.clips.rows, batches[1].targets.clips.rows)
    assert torch.equal(batches[0].targets.texts.ids_NW, batches[1].targets.texts.ids_NW)


def test_a_batch_of_files_of_no_use_ends_the_run(coloured: DatasetStores, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    assert coloured.videos is not None
    for number in range(len(COLOURS)):
        shutil.copy(coloured.videos / "cut.mp4", folder / f"{number}.mp4")
    stores = replace(coloured, videos=folder)
    made = trainer(stores, replace(RECIPE, train=replace(RECIPE.train, loaders=0)), tmp_path / "run", World())
    with pytest.raises(VlprepError, match=r"0 of 6 samples of a micro-batch .*\.mp4: cannot be opened"):
        made.run(lambda event: None)
