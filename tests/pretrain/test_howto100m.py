"""HowTo100M against its published code's numbers; what it draws; what it learns of pairs and does not of strangers."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain.golden_losses import check, published
from pretrain.narrated import FIRST_WORD, WORD_COUNT, narrated_videos

from vlprep.pretrain.base import MicroBatch, NarratedVideo, Sample
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.distributed import World, join_world
from vlprep.pretrain.dual import DualEncoder, DualObjective, narrated_clips
from vlprep.pretrain.dual_scores import embed_clips, embed_texts
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.howto100m import (
    GatedEmbedding,
    HowTo100M,
    HowTo100MConfig,
    HowTo100MSettings,
    PooledClips,
    TextVectors,
)
from vlprep.pretrain.models.kinds import build_model
from vlprep.pretrain.objectives.howto100m import PairTargets, RankedPairs, RankedPairSettings, max_margin, pair_weights
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.retrieval import measure
from vlprep.pretrain.settings import OptimiserSettings, TrainSettings
from vlprep.pretrain.setup import model_config, open_corpora, prepare, store_facts
from vlprep.pretrain.trainer import Trainer
from vlprep.text.words import VectorTable

CPU = torch.device("cpu")
RANKS = 4


@pytest.mark.parametrize("case", ["plain", "pairs_unweighted", "weighted", "weighted_h07"])
def test_margin_loss_is_the_published_one(golden, case: str) -> None:
    case = published(golden, f"howto_margin.{case}")
    settings = case.settings
    count, weights = len(case.given["x"]), torch.ones(())
    if settings["negative_weighting"]:
        weights = pair_weights(count, settings["n_pair"], settings["hard_negative_rate"], CPU)
        assert weights[0, 1].item() == pytest.approx(case.expected["weight_same_video"])
        assert weights[0, -1].item() == pytest.approx(case.expected["weight_other_video"])
    x = case.given["x"].requires_grad_()
    check(max_margin(x, x.T, x.diagonal(), weights.expand(count, count), settings["margin"]) / count, case, x=x)


def test_the_weights_are_one_in_the_mean_and_a_lone_video_has_none() -> None:
    weights = pair_weights(32 * 4, 4, 0.5, CPU)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[0, 0].item(), weights[0, 4].item()) == (16, pytest.approx(0.516, abs=1e-3))
    assert torch.equal(pair_weights(4, 4, 0.5, CPU), torch.ones(4, 4))
    assert torch.equal(pair_weights(4, 1, 0.5, CPU), torch.ones(4, 4))


def test_the_diagonal_is_the_floor_of_the_loss() -> None:
    similarity = 10 * torch.eye(128)
    weights = pair_weights(128, 4, 0.5, CPU)
    loss = max_margin(similarity, similarity.T, similarity.diagonal(), weights, 0.1) / 128
    assert loss.item() == pytest.approx(2 * 0.1 * 16 / 128, rel=1e-5)


def test_gated_embedding_is_the_published_one(golden) -> None:
    case = published(golden, "howto_geu")
    unit = GatedEmbedding(16, 24)
    names = {"fc.weight": "fc_weight", "fc.bias": "fc_bias", "cg.fc.weight": "cg_weight", "cg.fc.bias": "cg_bias"}
    unit.load_state_dict({name: case.given[given] for name, given in names.items()}, strict=False)
    np.testing.assert_allclose(unit(case.given["x"]).detach(), case.out["y"], rtol=1e-5, atol=2e-6)


def test_network_is_the_published_one(golden, tmp_path) -> None:
    case = published(golden, "howto_net")
    model = HowTo100M(HowTo100MConfig(vocabulary=9, word_dim=12, clip_dim=18, joint=10))
    weights = {name[2:]: tensor for name, tensor in case.given.items() if name.startswith("w.")}
    model.load_state_dict(weights, strict=False)
    # the same words by their rows in a table, padded as far as it takes
    words, counts = case.given["text"].flatten(0, 1).numpy(), case.given["word_counts"].tolist()
    np.save(tmp_path / "vectors.npy", words)
    objective = RankedPairs(vectors=VectorTable(tmp_path / "vectors.npy"), settings=RankedPairSettings(max_words=7))
    texts = objective.collate_texts([np.arange(count) + 7 * row for row, count in enumerate(counts)])
    clips = objective.collate_clips(list(case.given["video"].numpy()))
    found = {
        "text_pooled": model.text_pooling(texts.vectors_NWV),
        "text_embedding": model.embed_text(texts),
        "video_embedding": model.embed_video(clips),
        "similarity": model.embed_text(texts) @ model.embed_video(clips).T,
    }
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor.detach(), case.out[name], rtol=1e-5, atol=2e-6, err_msg=name)


def test_a_text_is_embedded_alike_whatever_it_is_batched_with(tmp_path) -> None:
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    objective = RankedPairs(vectors=VectorTable(tmp_path / "vectors.npy"), settings=RankedPairSettings(max_words=5))
    model = small_model()
    short, long = np.array([1, 2], np.int32), np.arange(5, dtype=np.int32)
    alone = model.embed_text(objective.collate_texts([short]))
    torch.testing.assert_close(model.embed_text(objective.collate_texts([long, short]))[1:], alone)


@pytest.fixture
def video() -> NarratedVideo:
    seconds = np.arange(8)
    two, three = np.zeros((8, 2), np.float16), np.ones((4, 3), np.float16)
    two[:, 0], two[3, 1] = 3, 4
    return NarratedVideo(
        features_CD=(two, three),
        times_C2=(np.stack([seconds, seconds + 1], 1) * 1.0, np.stack([seconds[:4], seconds[:4] + 1], 1) * 2.0),
        spans_N2=np.array([[0, 1.5], [3.2, 3.8], [6, 8]], np.float32),
        texts=tuple(np.array(ids, np.int32) for ids in ([1, 2], [3], [4, 5, 6])),
    )


def test_a_clip_is_the_normalised_maximum_of_each_store(video) -> None:
    objective = RankedPairs(vectors=None)
    np.testing.assert_allclose(objective.clip(video, (2.5, 3.5)), [0.6, 0.8, *[3**-0.5] * 3], rtol=1e-6)
    np.testing.assert_allclose(objective.clip(video, (6.0, 8.0)), [1, 0, *[3**-0.5] * 3], rtol=1e-6)


def test_short_segments_are_drawn_with_their_neighbours(video) -> None:
    objective = RankedPairs(vectors=None, settings=RankedPairSettings(pairs=40, min_seconds=3.0, max_words=4))
    assert isinstance(objective, DualObjective)
    drawn = objective.example(Sample(key=0, video=video), np.random.default_rng(0))
    assert len(drawn.texts) == len(drawn.clips) == 40
    # 0 and 1 take 3.8 seconds together; 2 takes 4.8 with 1
    assert {tuple(ids.tolist()) for ids in drawn.texts} == {(1, 2, 3), (3, 1, 2), (4, 5, 6, 3)}
    alone = RankedPairs(vectors=None, settings=RankedPairSettings(pairs=40, min_seconds=0.5)).example(
        Sample(key=0, video=video), np.random.default_rng(0)
    )
    assert {tuple(ids.tolist()) for ids in alone.texts} == {(1, 2), (3,), (4, 5, 6)}


# --- several processes -----------------------------------------------------------------------------------------------

VIDEOS, PAIRS = 8, 3


def small_model() -> HowTo100M:
    torch.manual_seed(0)
    return HowTo100M(HowTo100MConfig(vocabulary=9, word_dim=4, clip_dim=5, joint=6))


def pairs_of(first: int, last: int) -> MicroBatch:
    draw = torch.Generator().manual_seed(1)
    texts, clips = torch.randn(VIDEOS * PAIRS, 2, 4, generator=draw), torch.randn(VIDEOS * PAIRS, 5, generator=draw)
    own = slice(first * PAIRS, last * PAIRS)
    targets = PairTargets(TextVectors(texts[own]), PooledClips(clips[own]))
    return MicroBatch(objective="", inputs=None, targets=targets, count=len(texts[own]), real_tokens=0)


def gradients(model: HowTo100M) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def share(folder: Path, rank: int, port: int) -> None:
    """One process of four, its part of the loss added up as the trainer does."""
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    each = VIDEOS // RANKS
    with join_world("cpu") as world:
        model = small_model()
        loss = (
            RankedPairs(vectors=None, settings=RankedPairSettings(pairs=PAIRS))
            .loss(model, pairs_of(rank * each, rank * each + each))
            .sum
        )
        (loss / (VIDEOS * PAIRS)).backward()
        found = {name: world.add(gradient).tolist() for name, gradient in gradients(model).items()}
        found["loss"] = float(world.add(loss.detach().clone())) / (VIDEOS * PAIRS)
    (folder / f"{rank}.json").write_text(json.dumps(found))


def test_four_processes_are_one_with_their_batches_together(tmp_path: Path) -> None:
    model, every = small_model(), pairs_of(0, VIDEOS).targets
    similarity = model.embed_text(every.texts) @ model.embed_video(every.clips).T
    weights = pair_weights(VIDEOS * PAIRS, PAIRS, 0.5, CPU)
    loss = max_margin(similarity, similarity.T, similarity.diagonal(), weights, 0.1) / (VIDEOS * PAIRS)
    loss.backward()
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlprep.pretrain.objectives.howto100m"])
    processes = [context.Process(target=share, args=(tmp_path, rank, port)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for rank in range(RANKS):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found.pop("loss") == pytest.approx(loss.item(), rel=1e-6)
        assert found.keys() == gradients(model).keys()
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(torch.tensor(found[name]), gradient, msg=name)


# --- learning --------------------------------------------------------------------------------------------------------


def trained(folder: Path, *, shuffled: bool) -> tuple[HowTo100M, RankedPairs, dict[str, float]]:
    folder.mkdir()
    np.save(folder / "vectors.npy", np.random.default_rng(5).normal(size=(FIRST_WORD + WORD_COUNT, 12)).astype("f4"))
    table = VectorTable(folder / "vectors.npy")
    words = TextVocabulary(size=len(table.vectors_VD), pad=-1, cls=-1, sep=-1, mask=-1, first_word=0, vectors=table)
    recipe = Recipe(
        model=HowTo100MSettings(joint=64),
        data=CorpusSettings(features=("s3d",)),
        batches=BatchSettings(samples=16),
        objectives={"howto100m": RankedPairSettings(pairs=4, max_words=20, min_seconds=0.0)},
        optimiser=OptimiserSettings(
            lr=3e-3, warmup=0, schedule="exponential", betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, clip=0.0
        ),
        train=TrainSettings(steps=400, log_every=400, save_every=400, loaders=0, validation_share=0.0, seed=3),
    )
    corpora = open_corpora([narrated_videos(folder, 200, shuffled=shuffled)], recipe)
    torch.manual_seed(0)
    facts = store_facts(corpora)
    model = build_model(model_config(recipe, words, facts))
    made = prepare(recipe, corpora, words, facts, processes=1)
    logged: list[dict[str, float]] = []
    trainer = Trainer(model, made.objectives, made.batches, recipe.train, recipe.optimiser, World(), folder / "run")
    trainer.run(lambda event: logged.append(dict(getattr(event, "losses", {}))))
    return model.eval(), made.objectives["howto100m"], logged[0]


def recall(model: HowTo100M, objective: RankedPairs, folder: Path) -> tuple[float, float]:
    """R@1 of texts for clips and of clips for texts, 160 pairs of 40 videos that were not trained on."""
    assert isinstance(model, DualEncoder)
    [corpus] = open_corpora([narrated_videos(folder, 40, seed=1)], Recipe(data=CorpusSettings(features=("s3d",))))
    samples = [corpus.sample(number) for number in range(len(corpus))]
    pairs = [(ids, (sample.video, span)) for sample in samples for ids, span in narrated_clips(sample)]
    texts_ND = embed_texts(model, objective, [ids for ids, _ in pairs], CPU)
    clips_ND, _ = embed_clips(model, objective, [clip for _, clip in pairs], CPU)
    right = np.eye(len(pairs), dtype=bool)
    assert len(pairs) == 160
    scores = texts_ND @ clips_ND.T
    return measure(scores, right).recall[1].value, measure(scores.T, right).recall[1].value


def test_pairs_are_learned_and_strangers_are_not(tmp_path: Path) -> None:
    paired = recall(*trained(tmp_path / "paired", shuffled=False)[:2], tmp_path / "new")
    strangers = recall(*trained(tmp_path / "shuffled", shuffled=True)[:2], tmp_path / "again")
    assert min(paired) >= 10 / 160
    assert max(strangers) <= 4 / 160  # 1 is chance
