"""MIL-NCE on stored features: which texts are candidates, what is drawn, what it learns; several processes as one."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain.narrated import FIRST_WORD, WORD_COUNT, narrated_videos

from vlprep.errors import SettingsError
from vlprep.pretrain.base import NarratedVideo, Sample, StoreFacts
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.checkpoint import checkpoints, read_model
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.distributed import World, join_world
from vlprep.pretrain.dual import DualEncoder, DualObjective, narrated_clips
from vlprep.pretrain.dual_scores import embed_clips, embed_texts
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.kinds import build_model
from vlprep.pretrain.models.milnce import MilNce, MilNceSettings, milnce_config, padding_row
from vlprep.pretrain.narration import nearest, stretched
from vlprep.pretrain.objectives.milnce import MilNceTask, MilNceTaskSettings, StoredClips
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.retrieval import measure
from vlprep.pretrain.settings import OptimiserSettings, TrainSettings
from vlprep.pretrain.setup import model_config, open_corpora, prepare, store_facts
from vlprep.pretrain.trainer import Logged, Trainer
from vlprep.text.words import open_words

CPU = torch.device("cpu")
WORDS = TextVocabulary(size=FIRST_WORD + WORD_COUNT, pad=-1, cls=-1, sep=-1, mask=-1, first_word=0)
RANKS = 4
RECIPE = Recipe(
    model=MilNceSettings(word_dim=16, hidden=64, joint=32, freeze_words=False),
    data=CorpusSettings(features=("s3d",)),
    batches=BatchSettings(samples=32),
    objectives={"milnce": MilNceTaskSettings(candidates=2, max_words=6)},
    optimiser=OptimiserSettings(
        lr=3e-3, warmup=20, schedule="cosine", betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, clip=0.0
    ),
    train=TrainSettings(steps=400, log_every=400, save_every=400, loaders=0, validation_share=0.0, seed=3),
)


def spans(*starts_and_ends: tuple[float, float]) -> np.ndarray:
    return np.array(starts_and_ends, np.float32)


def test_words_become_the_ids_of_s3d_howto100m(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = json.loads((golden / "video/s3d_howto100m/text_tokens.json").read_text())
    np.save(tmp_path / "s3d_dict.npy", np.array(table["dictionary"]))
    words = open_words(f"words:{tmp_path / 's3d_dict.npy'}", list)
    settings = MilNceTaskSettings(max_words=table["max_words"])
    task = MilNceTask(name="milnce", showing=StoredClips(), pad=words.padding, settings=settings)
    for row in table["rows"]:
        [ids] = words.encode([row["text"]])
        assert task.text(np.array(ids, np.int32)).tolist() == row["S3D_HowTo100M"], row["text"]


def test_candidates_are_the_nearest_in_time_as_published() -> None:
    told = spans((0, 2), (2, 4), (10, 12), (12, 13), (13, 15), (30, 32))
    assert nearest(told, 3, 1) == [3]
    assert nearest(told, 3, 2) == [3, 4]  # 10 to 13 and 12 to 15 take 3 seconds each: the later one
    assert nearest(told, 3, 3) == [2, 3, 4]
    assert nearest(told, 3, 4) == [1, 2, 3, 4]  # 4 s away rather than 15
    assert nearest(told, 0, 3) == [0, 1, 2]
    assert nearest(told, 1, 4) == [0, 1, 2, 3]  # the first is reached: the first ones
    assert nearest(told, 5, 3) == [3, 4, 5]
    assert nearest(told[:2], 0, 4) == [0, 1, 1, 1]  # captions repeat
    assert nearest(told[:2], 1, 4) == [0, 0, 0, 1]
    assert nearest(told[:1], 0, 3) == [0, 0, 0]


def test_short_segments_are_stretched_to_both_sides() -> None:
    assert stretched((10.0, 16.0), 5.0) == (10.0, 16.0)
    assert stretched((10.0, 12.0), 5.0) == (8.5, 13.5)
    assert stretched((0.5, 1.5), 5.0) == (0.0, 5.0)


@pytest.fixture
def video() -> NarratedVideo:
    starts = np.arange(10.0)
    return NarratedVideo(
        features_CD=(np.arange(10, dtype=np.float16)[:, None].repeat(3, 1),),
        times_C2=(np.stack([starts, starts + 1], 1),),
        spans_N2=spans((0, 2), (4, 4.5), (7, 10)),
        texts=tuple(np.array(ids, np.int32) for ids in ([1, 2], [3], [4, 5, 6])),
    )


def test_an_example_is_a_clip_of_a_segment_with_the_texts_around_it(video: NarratedVideo) -> None:
    settings = MilNceTaskSettings(candidates=2, max_words=2, min_seconds=3.0)
    task = MilNceTask(name="milnce", showing=StoredClips(), pad=9, settings=settings)
    assert isinstance(task, DualObjective)
    draws = [task.example(Sample(key=0, video=video), np.random.default_rng(seed)) for seed in range(60)]
    seen: dict[tuple[int, ...], set[float]] = {}
    for bag in draws:
        assert bag.rows.shape == (1, 3)
        seen.setdefault(tuple(bag.ids_KW[:, 0].tolist()), set()).add(float(bag.rows[0, 0]))
    # the middle segment, 2.75 to 5.75 s, is as near to the first as the last one is not
    assert seen == {(1, 3): {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}, (3, 4): {7.0, 8.0, 9.0}}
    assert draws[0].ids_KW.shape == (2, 2)
    batch = task.collate(draws[:3])
    assert (batch.count, batch.targets.clips.rows.shape) == (3, (3, 3))
    assert batch.targets.texts.ids_NW.shape == (6, 2)
    assert batch.real_tokens == sum(int((bag.ids_KW != 9).sum()) for bag in draws[:3])


def test_the_words_begin_with_their_vectors_and_a_padding_row() -> None:
    assert padding_row(WORDS) == WORDS.size
    assert padding_row(replace(WORDS, pad=0)) == 0
    facts = StoreFacts(clip_dims=(5,))
    config = milnce_config(RECIPE.model, WORDS, facts)
    assert config.vocabulary == WORDS.size + 1
    assert milnce_config(RECIPE.model, replace(WORDS, pad=0), facts).vocabulary == WORDS.size
    model = MilNce(replace(config, freeze_words=True))
    model.load_words(torch.ones(WORDS.size, 16))
    words = model.text_module.word_embd
    assert words.weight[:-1].eq(1).all()
    assert words.weight[-1].eq(0).all()
    assert not words.weight.requires_grad
    with pytest.raises(SettingsError, match="one store of features"):
        milnce_config(RECIPE.model, WORDS, StoreFacts())


# --- learning --------------------------------------------------------------------------------------------------------


def trainer(stores: DatasetStores, recipe: Recipe, folder: Path, world: World) -> Trainer:
    corpora = open_corpora([stores], recipe)
    torch.manual_seed(0)
    facts = store_facts(corpora)
    model = build_model(model_config(recipe, WORDS, facts))
    made = prepare(recipe, corpora, WORDS, facts, processes=world.size)
    return Trainer(model, made.objectives, made.batches, recipe.train, recipe.optimiser, world, folder)


def recall(folder: Path, *, shuffled: bool) -> tuple[float, float]:
    """R@1 of texts for clips and of clips for texts, 160 pairs of 40 videos that were not trained on."""
    made = trainer(narrated_videos(folder / "told", 240, shuffled=shuffled), RECIPE, folder / "run", World())
    made.run(lambda event: None)
    model = made.model.eval()
    assert isinstance(model, DualEncoder)
    task = made.batches.streams[0].objective
    [corpus] = open_corpora([narrated_videos(folder / "new", 40, seed=1)], RECIPE)
    samples = [corpus.sample(number) for number in range(len(corpus))]
    pairs = [(ids, (sample.video, span)) for sample in samples for ids, span in narrated_clips(sample)]
    texts_ND = embed_texts(model, task, [ids for ids, _ in pairs], CPU)
    clips_ND, _ = embed_clips(model, task, [clip for _, clip in pairs], CPU)
    assert len(pairs) == 160
    scores, right = texts_ND @ clips_ND.T, np.eye(160, dtype=bool)
    return measure(scores, right).recall[1].value, measure(scores.T, right).recall[1].value


def test_pairs_are_learned_and_strangers_are_not(tmp_path: Path) -> None:
    assert min(recall(tmp_path / "paired", shuffled=False)) >= 10 / 160  # 1 is chance
    assert max(recall(tmp_path / "shuffled", shuffled=True)) <= 4 / 160


# --- several processes -----------------------------------------------------------------------------------------------


def train_share(stores: DatasetStores, folder: Path, rank: int, size: int, port: int) -> None:
    """One process of `size`, which together take 32 videos a step."""
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    recipe = replace(
        RECIPE,
        batches=BatchSettings(samples=32 // size),
        train=replace(RECIPE.train, steps=5, log_every=1, save_every=5),
        optimiser=replace(RECIPE.optimiser, warmup=0, lr=1e-3),
    )
    logged: list[Logged] = []
    with join_world("cpu") as world:
        made = trainer(stores, recipe, folder, world)
        made.run(lambda event: logged.append(event) if isinstance(event, Logged) else None)
    if rank == 0:
        found = {"losses": [entry.losses["milnce"] for entry in logged], "norms": [entry.grad_norm for entry in logged]}
        (folder / "found.json").write_text(json.dumps(found))


def test_four_processes_train_as_one_with_four_times_the_batch(tmp_path: Path) -> None:
    stores = narrated_videos(tmp_path / "told", 128)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlprep.pretrain.trainer", "vlprep.pretrain.setup"])
    for size in (1, RANKS):
        folder = tmp_path / str(size)
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        processes = [
            context.Process(target=train_share, args=(stores, folder, rank, size, port)) for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
    alone, together = (json.loads((tmp_path / str(size) / "found.json").read_text()) for size in (1, RANKS))
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert together["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    weights = [read_model(checkpoints(tmp_path / str(size) / "checkpoints")[-1]) for size in (1, RANKS)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5, msg=name)
