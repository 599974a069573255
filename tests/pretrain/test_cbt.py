"""CBT: its two losses by their formulas, the text encoder that stays as it is, and what it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretrain.learning import WORDS, tiny_recipe, train
from pretrain.narrated import narrated_videos
from pretrain.test_univl import video

from vlprep.errors import SettingsError
from vlprep.interop.initial import load_initial
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.dual import by_segment
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import generator
from vlprep.pretrain.models.cbt import Cbt, CbtConfig, CbtSettings, cbt_config
from vlprep.pretrain.objectives.cbt import CbtTasks
from vlprep.pretrain.objectives.told_clips import SegmentRule, SegmentSettings
from vlprep.pretrain.packing import pack
from vlprep.pretrain.places import CorpusSettings

SIZES = EncoderConfig(layers=2, hidden=16, heads=2, intermediate=32)
CONFIG = CbtConfig(encoder=SIZES, video_layers=1, vocabulary=40, positions=32, text_places=12, clip_dim=8)
TASKS = CbtTasks(segments=SegmentRule(words=WORDS, settings=SegmentSettings(max_words=12, max_clips=5)))


def batch_of(count: int):
    return TASKS.collate([TASKS.example(video(key), generator(0, 0, key, "cbt")) for key in range(count)])


def test_losses_by_their_formulas() -> None:
    torch.manual_seed(0)
    model, batch = Cbt(CONFIG).eval(), batch_of(3)
    clips, rows = batch.inputs.clips, batch.targets.clip_rows_C.tolist()
    assert len(rows) == batch.counts["visual"] >= 3  # one of each segment at least
    loss = TASKS.loss(model, batch)
    with torch.no_grad():
        features = clips.features_CD.float()
        states = model.encode_clips(replace(clips, features_CD=features * ~clips.masked_C[:, None]))
        embedding = model.visual["embeddings"].word_embeddings
        normal = (features - features.mean(1, keepdim=True)) / features.std(1, correction=0, keepdim=True)
        targets = normal @ embedding.weight.t() + embedding.bias
        visual = 0.0
        for row in rows:
            scores = [float(states[row] @ target) / 4 for target in targets]
            visual -= scores[row] - np.logaddexp.reduce(scores)
        assert loss.terms["visual"].item() == pytest.approx(visual, rel=1e-5)
        information = TASKS.information(model, batch.inputs).double().numpy()
        cross = -sum(information[text, text] - np.logaddexp.reduce(information[text]) for text in range(3))
        assert loss.sum.item() == pytest.approx(cross, rel=1e-5)


def test_the_cross_modal_transformer_sees_every_clip() -> None:
    torch.manual_seed(0)
    model, batch = Cbt(CONFIG).eval(), batch_of(2)
    unmasked = replace(
        batch.inputs, clips=replace(batch.inputs.clips, masked_C=torch.zeros_like(batch.inputs.clips.masked_C))
    )
    with torch.no_grad():
        found, expected = (TASKS.information(model, inputs) for inputs in (batch.inputs, unmasked))
    torch.testing.assert_close(found, expected)


def test_any_text_is_ranked_with_any_segment_as_in_a_batch() -> None:
    torch.manual_seed(0)
    model, segments = Cbt(CONFIG).eval(), [one for key in range(2) for one in by_segment(video(key, segments=2))]
    with torch.no_grad():
        together = TASKS.information(model, pack([TASKS.pair(one, one) for one in segments]))
        crossed = [TASKS.pair(text, seen) for text in segments for seen in segments]
        torch.testing.assert_close(TASKS.scores(model, pack(crossed)).view(4, 4), together, atol=1e-5, rtol=1e-4)
    assert together.std() > 0


def test_the_text_encoder_stays_as_it_is() -> None:
    torch.manual_seed(0)
    model, batch = Cbt(CONFIG).train(), batch_of(2)
    TASKS.loss(model, batch).mean(batch.counts).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("bert."), name
    texts = batch.inputs.text
    torch.testing.assert_close(model.encode_texts(texts), model.encode_texts(texts), rtol=0, atol=0)  # no dropout


def test_it_is_a_berts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bert = {f"bert.{name}": tensor for name, tensor in Cbt(CONFIG).bert.state_dict().items()}
    file = tmp_path / "bert.pt"
    torch.save(bert | {"bert.pooler.dense.bias": torch.zeros(16)}, file)
    model = Cbt(CONFIG)
    report = load_initial(model, str(file))
    assert set(report.loaded) == bert.keys()
    assert report.unused == ("bert.pooler.dense.bias",)
    assert {name.split(".")[0] for name in report.initial} == {"visual", "cross", "mutual_information"}


def test_it_reads_one_store() -> None:
    with pytest.raises(SettingsError, match=r"data\.features"):
        cbt_config(CbtSettings(), WORDS, SimpleNamespace(clip_dims=(8, 8)))


def test_texts_find_their_clips(tmp_path: Path) -> None:
    """One of 30 words a segment; 8 segments a batch, so that chance is 1/8. The random text encoder is enough here."""
    made = tiny_recipe(["cbt"], steps=250, lr=3e-3, kind="cbt", layers=1, video_layers=1, cross_layers=1)
    made = replace(made, batches=BatchSettings(samples=8), data=CorpusSettings(features=("s3d",)))
    paired, _ = train(made, narrated_videos(tmp_path / "paired", words=1), tmp_path / "paired")
    shuffled, _ = train(made, narrated_videos(tmp_path / "shuffled", words=1, shuffled=True), tmp_path / "shuffled")
    assert paired["cbt/cross accuracy"] > 0.7 > 0.3 > shuffled["cbt/cross accuracy"]
    # a masked clip looks like the two others of its segment, and like no other of the 24: at best a third
    for figures in (paired, shuffled):
        assert figures["cbt/visual"] < np.log(24) - 1
        assert figures["cbt/visual accuracy"] > 2 / 24
