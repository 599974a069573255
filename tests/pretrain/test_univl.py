"""UniVL: its parts against formulas and torch's decoder, its losses against the published code's, what it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretrain.golden_losses import check, published
from pretrain.learning import WORDS, tiny_recipe, train
from pretrain.narrated import narrated_videos
from torch import nn

from vlprep.errors import SettingsError
from vlprep.pretrain.base import NarratedVideo, Sample
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.decoder import TextDecoder
from vlprep.pretrain.dual import narrated_clips
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import generator
from vlprep.pretrain.models.clip_parts import every_pair, means, pair_rows
from vlprep.pretrain.models.univl import Univl, UnivlConfig, UnivlSettings, univl_config
from vlprep.pretrain.objectives.contrastive import diagonal_nce, nce
from vlprep.pretrain.objectives.told_clips import consecutive
from vlprep.pretrain.objectives.univl import UnivlRetrieval, UnivlRetrievalSettings, UnivlTasks, UnivlTaskSettings
from vlprep.pretrain.packing import Example, pack
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.retrieval import measure
from vlprep.pretrain.video_corpus import VideoCorpus

SIZES = EncoderConfig(layers=2, hidden=16, heads=2, intermediate=32, dropout=0, attention_dropout=0)
CONFIG = UnivlConfig(
    encoder=SIZES,
    video_layers=1,
    cross_layers=1,
    decoder_layers=2,
    vocabulary=40,
    positions=32,
    text_places=12,
    clip_dim=8,
)
SHORT = {"max_words": 12, "max_clips": 5}
TASKS = UnivlTasks(words=WORDS, settings=UnivlTaskSettings(**SHORT))


def video(key: int, segments: int = 5, words: int = 6) -> Sample:
    """A clip a second, a segment every 6 seconds."""
    rng = np.random.default_rng(key)
    starts = np.arange(segments * 6, dtype=np.float32)
    begin = np.arange(segments, dtype=np.float32) * 6
    return Sample(
        key=key,
        video=NarratedVideo(
            features_CD=(rng.normal(size=(len(starts), 8)).astype(np.float16),),
            times_C2=(np.stack([starts, starts + 1], 1),),
            spans_N2=np.stack([begin, begin + 5.5], 1),
            texts=tuple(rng.integers(5, 40, words).astype(np.int32) for _ in range(segments)),
        ),
    )


def inputs_of(*lengths: tuple[int, int]):
    rng = np.random.default_rng(0)
    return pack(
        [
            Example(text_ids_P=rng.integers(5, 40, words), clips_CD=rng.normal(size=(clips, 8)).astype(np.float32))
            for words, clips in lengths
        ]
    )


def streams_of(model: Univl, inputs):
    return model.encode(inputs, model.clip_features(inputs.clips))


def test_mean_states_are_multiplied_as_published(golden: Path) -> None:
    case = published(golden, "univl_pooled_similarity")
    given = case.given
    text_real, clips_real = given["text_mask"].bool(), given["video_mask"].bool()
    texts = means(given["text"][text_real], text_real.sum(1), skip=1)
    clips = means(given["video"][clips_real], clips_real.sum(1))
    np.testing.assert_allclose(texts @ clips.t(), case.out["similarity_dot"], rtol=1e-5, atol=2e-6)


def test_alignment_of_the_published_code(golden: Path) -> None:
    case = published(golden, "univl_alignment")
    states = case.given["pair_states"].requires_grad_()
    head = nn.Linear(8, 1)
    head.load_state_dict({"weight": case.given["weight"], "bias": case.given["bias"]})

    class Cross:
        def __call__(self, streams, inputs, texts_N, videos_N):
            return states[texts_N, videos_N]

        def pooled(self, pairs):
            return pairs

    model = SimpleNamespace(cross=Cross(), similarity_dense=head)
    logits = Univl.alignment(model, None, SimpleNamespace(lengths_B=torch.zeros(6)))
    np.testing.assert_allclose(logits.detach(), case.out["logits"], rtol=1e-5, atol=2e-6)
    check(diagonal_nce(logits).loss_B, case, pair_states=states)


@pytest.mark.parametrize("learn_padding", [False, True])
def test_what_the_decoder_is_to_write(golden: Path, learn_padding: bool) -> None:
    """The published loss averages over [PAD] too; the batch says which positions there are."""
    case = published(golden, "univl_decoder")
    logits, targets = case.given["logits"], case.given["target"]
    settings = UnivlTaskSettings(max_words=targets.shape[1], learn_padding=learn_padding, neighbours=1)
    tasks = UnivlTasks(words=replace(WORDS, sep=2), settings=settings)
    lengths = case.given["lengths"].tolist()
    stories = [
        replace(one, video=replace(one.video, texts=(row[: length - 1].numpy().astype(np.int32),)))
        for one, row, length in zip((video(key, 1) for key in range(3)), targets, lengths, strict=True)
    ]
    batch = tasks.collate([tasks.example(one, generator(0, 0, one.key, "u")) for one in stories])
    widths = [targets.shape[1]] * 3 if learn_padding else lengths
    assert batch.targets.captions.lengths_B.tolist() == widths
    assert batch.targets.caption_lengths_B.tolist() == lengths
    assert batch.counts["decoder"] == sum(widths)
    written = [row[:width].clone() for row, width in zip(targets, widths, strict=True)]
    for row, length in zip(written, lengths, strict=True):
        row[length - 1] = WORDS.sep
    assert batch.targets.next_ids_P.tolist() == torch.cat(written).tolist()
    real = torch.cat([row[:width] for row, width in zip(logits, widths, strict=True)])
    kept = torch.cat([row[:width] for row, width in zip(targets, widths, strict=True)])
    expected = case.expected["loss" if learn_padding else "loss_without_padding"]
    assert nce(real, kept).loss_B.mean().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def torchs_decoder(ours: TextDecoder, sizes: EncoderConfig) -> nn.TransformerDecoder:
    """The same layers as torch has them."""
    layer = nn.TransformerDecoderLayer(
        sizes.hidden, sizes.heads, sizes.intermediate, 0.0, "gelu", sizes.norm_eps, batch_first=True
    )
    theirs = nn.TransformerDecoder(layer, sizes.layers)
    names = {"slf_attn": ("self_attn", "norm1"), "enc_attn": ("multihead_attn", "norm2")}
    for mine, other in zip(ours.decoder["layer"], theirs.layers, strict=True):
        state = {}
        for name, (attention, norm) in names.items():
            block = getattr(mine, name)
            for kind in ("weight", "bias"):
                projections = [getattr(block.att[part], kind) for part in ("query", "key", "value")]
                state[f"{attention}.in_proj_{kind}"] = torch.cat(projections)
                state[f"{attention}.out_proj.{kind}"] = getattr(block.output.dense, kind)
                state[f"{norm}.{kind}"] = getattr(block.output.LayerNorm, kind)
        for name, module in (
            ("linear1", mine.intermediate.dense),
            ("linear2", mine.output.dense),
            ("norm3", mine.output.LayerNorm),
        ):
            state |= {f"{name}.{kind}": getattr(module, kind) for kind in ("weight", "bias")}
        other.load_state_dict(state)
    return theirs.eval()


def test_the_decoder_equals_torchs() -> None:
    """Captions of several lengths in one pack, one of them padded as published."""
    torch.manual_seed(0)
    model = Univl(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    decoder, embeddings = model.decoder, model.bert["embeddings"]
    theirs = torchs_decoder(decoder, replace(SIZES, layers=2))
    inputs = inputs_of((4, 3), (7, 2), (3, 5))
    captions = [torch.randint(5, 40, (length,)) for length in (5, 2, 6)]
    captions[2][4:] = 0
    real = [5, 2, 4]
    text = pack([Example(text_ids_P=caption.numpy()) for caption in captions]).text
    with torch.no_grad():
        pairs = model.pairs(streams_of(model, inputs), inputs)
        found = model.caption_logits(text, torch.tensor(real), pairs).split([5, 2, 6])
        encoded = pairs.states_TH.split(inputs.lengths_B.tolist())
        for place, caption in enumerate(captions):
            count = len(caption)
            summed = embeddings.word_embeddings(caption) + embeddings.position_embeddings.weight[:count]
            hidden = theirs(
                decoder.embeddings["LayerNorm"](summed)[None],
                encoded[place][None],
                tgt_mask=torch.ones(count, count, dtype=torch.bool).triu(1),
                tgt_key_padding_mask=torch.arange(count)[None] >= real[place],
            )
            head = decoder.classifier["cls"]["predictions"]
            expected = head(hidden[0], embeddings.word_embeddings.weight)
            torch.testing.assert_close(found[place], expected, rtol=0, atol=2e-5)


def test_pairs_are_read_one_by_one() -> None:
    torch.manual_seed(0)
    model = Univl(CONFIG).eval()
    inputs = inputs_of((4, 3), (7, 2), (2, 5))
    with torch.no_grad():
        together = streams_of(model, inputs)
        scores = model.alignment(together, inputs)
        own = model.similarity_dense(model.cross.pooled(model.pairs(together, inputs)))[:, 0]
        torch.testing.assert_close(scores.diagonal(), own)
        texts = inputs.text.ids_P.split(inputs.text.lengths_B.tolist())
        clips = inputs.clips.features_CD.split(inputs.clips.lengths_B.tolist())
        for row, words in enumerate(texts):
            for column, features in enumerate(clips):
                alone = pack([Example(text_ids_P=words.numpy(), clips_CD=features.numpy())])
                score = model.alignment(streams_of(model, alone), alone)
                torch.testing.assert_close(scores[row, column], score[0, 0], rtol=0, atol=1e-5)
        similarity = model.similarity(together, inputs)
        torch.testing.assert_close(similarity, model.embed_text(inputs) @ model.embed_video(inputs).t())


def test_clips_stand_behind_the_places_of_the_text() -> None:
    """As behind the published padding: what lies between the text's end and `text_places` is never read."""
    torch.manual_seed(0)
    model = Univl(CONFIG).eval()
    inputs = inputs_of((4, 3))
    table = model.cross.embeddings.position_embeddings.weight
    with torch.no_grad():
        before = model.alignment(streams_of(model, inputs), inputs)
        table[4:12] += 1
        torch.testing.assert_close(model.alignment(streams_of(model, inputs), inputs), before)
        table[14] += torch.arange(16)
        assert not torch.isclose(model.alignment(streams_of(model, inputs), inputs), before)


def test_rows_of_pairs() -> None:
    rows, lengths = pair_rows(torch.tensor([2, 1]), torch.tensor([1, 3]), *every_pair(2))
    assert lengths.tolist() == [3, 5, 2, 4]
    assert rows.tolist() == [0, 1, 3, 0, 1, 4, 5, 6, 2, 3, 2, 4, 5, 6]


def test_masked_clips_are_zero_before_they_are_normalised() -> None:
    model = Univl(CONFIG)
    nn.init.normal_(model.normalize_video["visual_norm2d"].bias)
    clips = inputs_of((4, 3)).clips
    hidden = replace(clips, masked_C=torch.tensor([False, True, False]))
    features, plain = model.clip_features(hidden, hide=True), model.clip_features(hidden)
    torch.testing.assert_close(features[1], model.normalize_video["visual_norm2d"].bias)
    torch.testing.assert_close(features[[0, 2]], plain[[0, 2]])
    torch.testing.assert_close(plain, model.clip_features(clips))


@pytest.mark.parametrize("spread", [1.0, 0.125])
def test_clips_may_begin_centred(spread: float) -> None:
    model = Univl(CONFIG)
    features = 10 + torch.arange(8) + torch.randn(500, 8)  # what they share is most of them
    model.standardise_clips(features, spread)
    with torch.no_grad():
        begun = model.normalize_video["visual_norm2d"](features)
    assert begun.mean(0).abs().max() < 1e-4
    assert begun.std().item() == pytest.approx(spread, rel=1e-3)


def test_segments_are_drawn_together() -> None:
    drawn = {tuple(consecutive(7, 3, np.random.default_rng(seed))) for seed in range(50)}
    assert drawn == {(0, 1, 2), (3, 4, 5), (6, 0, 1)}
    assert consecutive(2, 3, np.random.default_rng(0)) == [0, 1, 0]


def test_a_segment_is_widened_and_cut() -> None:
    sample = video(0)
    told = replace(TASKS, settings=replace(TASKS.settings, min_seconds=10.0)).segments.told(sample.video, 0)
    assert told.words.tolist() == np.concatenate(sample.video.texts[:2]).tolist()
    np.testing.assert_array_equal(told.clips_CD, sample.video.features_CD[0][:5])
    assert TASKS.segments.sequence(told.words, told.clips_CD).text_ids_P.tolist() == [1, *told.words[:10], 2]
    example = TASKS.example(
        replace(sample, video=replace(sample.video, texts=(told.words,) * 5)), generator(0, 0, 0, "u")
    )
    assert len(example[0].caption) == len(example[0].next_ids) == 12


def test_masks_have_the_published_shares(golden: Path) -> None:
    rules = json.loads((golden / "pretraining" / "masking_statistics.json").read_text())["rules"]
    tasks = replace(TASKS, settings=replace(TASKS.settings, max_clips=6))
    sample = video(1, segments=3, words=10)
    videos = [tasks.example(sample, generator(0, 0, key, "univl")) for key in range(2000)]
    examples = [segment for drawn in videos for segment in drawn]
    seen = [segment for segment in examples if segment.sequence.num_text > 2]

    def near(got: float, p: float, count: int) -> bool:
        return abs(got - p) < 5 * (p * (1 - p) / count) ** 0.5

    shares = {name: entry["p"] for name, entry in rules["univl_frames"]["statistics"].items()}
    masked = np.array([segment.sequence.masked_C for segment in examples])
    assert near(masked.mean(), shares["frame_is_target"], masked.size)
    hidden = [drawn[0].sequence.num_text == 2 for drawn in videos]
    assert near(np.mean(hidden), shares["all_text_hidden"], len(videos))
    words = rules["univl_mlm.length10"]["statistics"]
    assert near(np.mean([len(one.places) == 0 for one in seen]), words["no_target"]["p"], len(seen))
    assert near(np.mean([1 in one.places for one in seen]), words["first_is_target"]["p"], len(seen))
    # the decoder's input: never [CLS] (id 1), never the last word
    plain = np.array([[WORDS.cls, *one.next_ids[:-1]] for one in examples])
    changed = np.array([one.caption for one in examples]) != plain
    assert not changed[:, 0].any()
    assert not changed[:, -1].any()
    share = 0.15 * (0.8 + 0.1 * (1 - 1 / (WORDS.size - WORDS.first_word)))
    assert near(changed[:, 1:-1].mean(), share, changed[:, 1:-1].size)


def test_of_a_hidden_narration_the_decoder_alone_sees_something() -> None:
    hidden = replace(TASKS, settings=replace(TASKS.settings, hide_text=1.0))
    for segment in hidden.example(video(1), generator(0, 0, 0, "univl")):
        assert segment.sequence.text_ids_P.tolist() == [WORDS.cls, WORDS.sep]
        assert len(segment.next_ids) == 7
        assert not len(segment.places)


def test_the_batch_says_what_is_masked() -> None:
    examples = [TASKS.example(video(key), generator(0, 0, key, "univl")) for key in range(4)]
    batch = TASKS.collate(examples)
    inputs, targets = batch.inputs, batch.targets
    assert len(inputs.lengths_B) == 12
    assert batch.count == 4
    rows = torch.full((int(inputs.lengths_B.sum()),), -1)
    rows[inputs.text.slots_P] = inputs.text.ids_P
    assert rows[targets.piece_slots_M].tolist() == targets.ids_M.tolist()
    unmasked = torch.ones(len(inputs.text.ids_P), dtype=torch.bool)
    unmasked[torch.isin(inputs.text.slots_P, targets.piece_slots_M)] = False
    assert (targets.masked_ids_P == inputs.text.ids_P)[unmasked].all()
    assert inputs.clips.masked_C.nonzero()[:, 0].tolist() == targets.clip_rows_C.tolist()
    assert inputs.clips.slots_C[targets.clip_rows_C].tolist() == targets.clip_slots_C.tolist()


def test_with_nothing_masked_the_loss_is_finite() -> None:
    """Published: NaN."""
    torch.manual_seed(0)
    model, short = Univl(CONFIG), replace(TASKS, settings=replace(TASKS.settings, hide_text=1.0, max_clips=1))
    for key in range(100):
        batch = short.collate([short.example(video(key), generator(0, 0, key, "univl")) for _ in range(2)])
        if not batch.counts["clips"]:
            break
    assert batch.counts["clips"] == batch.counts["mlm"] == 0
    loss = short.loss(model, batch)
    assert loss.terms["clips"] == loss.terms["mlm"] == 0
    loss.mean(batch.counts).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_the_stages_are_told_by_their_layers() -> None:
    with pytest.raises(SettingsError, match="stage one"):
        replace(CONFIG, cross_layers=0)
    with pytest.raises(SettingsError, match=r"data\.features"):
        univl_config(UnivlSettings(), WORDS, SimpleNamespace(clip_dims=()))


def recipe(name: str, *, samples: int, steps: int, lr: float, **model):
    made = tiny_recipe([name], steps=steps, lr=lr, kind="univl", layers=1, video_layers=1, **model)
    return replace(made, batches=BatchSettings(samples=samples), data=CorpusSettings(features=("s3d",)))


def held_out_recall(trainer, objective: UnivlRetrieval, folder: Path) -> tuple[float, float, float]:
    """R@1 of texts for clips and of clips for texts among the 160 segments of new videos, and chance."""
    corpus = VideoCorpus(narrated_videos(folder, 40, seed=1), CorpusSettings())
    samples = [corpus.sample(number) for number in range(len(corpus))]
    pairs = [(sample.video, *pair) for sample in samples for pair in narrated_clips(sample)]
    model = trainer.model.eval()
    with torch.no_grad():
        texts = model.embed_text(objective.collate_texts([objective.text(ids) for _, ids, _ in pairs]))
        clips = model.embed_video(objective.collate_clips([objective.clip(seen, span) for seen, _, span in pairs]))
    scores, right = (texts @ clips.t()).numpy(), np.eye(len(pairs), dtype=bool)
    found = measure(scores, right)
    return found.recall[1].value, measure(scores.T, right).recall[1].value, found.chance[1]


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_first_stage_finds_clips_for_new_texts(tmp_path: Path, shuffled: bool) -> None:
    """At least 30 times chance both ways, from paired videos; from shuffled ones less than 5 times chance."""
    made = recipe("univl-retrieval", samples=8, steps=200, lr=5e-3, cross_layers=0, decoder_layers=0)
    figures, trainer = train(made, narrated_videos(tmp_path, shuffled=shuffled), tmp_path)
    to_clips, to_texts, chance = held_out_recall(
        trainer, UnivlRetrieval(words=WORDS, settings=UnivlRetrievalSettings(**SHORT)), tmp_path / "new"
    )
    if shuffled:
        assert max(to_clips, to_texts) < 5 * chance
        assert figures["univl-retrieval/accuracy"] < 0.3  # of 8 videos
    else:
        assert min(to_clips, to_texts) > 30 * chance
        assert figures["univl-retrieval/accuracy"] > 0.7


def test_the_second_stage_learns_all_five_tasks(tmp_path: Path) -> None:
    """One word a segment, of 30; 4 videos of 3 segments of 3 clips a batch."""
    made = recipe("univl", samples=4, steps=300, lr=5e-3, cross_layers=1, decoder_layers=1)
    paired, _ = train(made, narrated_videos(tmp_path / "paired", words=1), tmp_path / "paired")
    shuffled, _ = train(made, narrated_videos(tmp_path / "shuffled", words=1, shuffled=True), tmp_path / "shuffled")
    assert paired["univl/mlm accuracy"] > 0.7 > 0.2 > shuffled["univl/mlm accuracy"]
    assert paired["univl/align accuracy"] > 0.5 > 0.2 > shuffled["univl/align accuracy"]  # chance: 1/12
    assert paired["univl/retrieval accuracy"] > 0.6 > 0.4 > shuffled["univl/retrieval accuracy"]  # 1/4
    assert paired["univl/decoder"] < 0.5 < shuffled["univl/decoder"]
    # a clip looks like the two others of its segment, and like no other of the 36: at best a third
    assert paired["univl/clips accuracy"] > 0.1
    assert paired["univl/clips"] < np.log(36) - 1
