"""`s3d_howto100m.pth` goes into our model strictly and comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips.golden_case import FEATURE, load_golden_weights
from torch import Tensor

from vlprep.errors import SettingsError
from vlprep.interop.bert_names import to_ours
from vlprep.interop.initial import load_initial
from vlprep.interop.mil_nce import to_mil_nce
from vlprep.interop.published import write_mil_nce
from vlprep.networks.s3dg import Stem
from vlprep.pretrain.models.milnce import MilNce, MilNceConfig, ShownClips, TextRows
from vlprep.weights import load_arrays

WORDS = 12
CONFIG = MilNceConfig(vocabulary=WORDS, trunk="space-to-depth")


def published(golden: Path, stem: Stem) -> dict[str, Tensor]:
    """Every key of the file with its shape, the dictionary cut short."""
    keys = dict(json.loads((golden / "video" / "s3d_howto100m" / "spec.json").read_text())["keys"])
    if stem == "plain":
        keys["conv1.conv1.weight"] = [64, 3, 3, 7, 7]
    draw = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=draw) for name, shape in keys.items()}
    made = {name: value / value[0].numel() ** 0.5 if value.dim() > 1 else value for name, value in made.items()}
    made["text_module.word_embd.weight"] = made["text_module.word_embd.weight"][:WORDS].clone()
    return {
        name: torch.tensor(7) if name.endswith("num_batches_tracked") else value.abs() + 0.5 if "var" in name else value
        for name, value in made.items()
    }


@pytest.mark.parametrize("stem", ["space-to-depth", "plain"])
def test_the_file_goes_in_whole_and_comes_back_as_it_was(golden: Path, tmp_path: Path, stem: Stem) -> None:
    arrays = published(golden, stem)
    assert len(arrays) == 537
    torch.save({"state_dict": {f"module.{name}": value for name, value in arrays.items()}}, tmp_path / "their.pth")
    model = MilNce(replace(CONFIG, trunk=stem))
    loaded = load_initial(model, str(tmp_path / "their.pth"))
    assert loaded.initial == loaded.unused == loaded.partly == ()
    written = load_arrays(write_mil_nce(tmp_path / "out", model.state_dict()).files[0])
    assert written.keys() == arrays.keys()
    for name, value in arrays.items():
        assert torch.equal(written[name], value), name


def test_the_loaded_network_is_the_clip_encoders(golden: Path) -> None:
    from vlprep.clips.s3d import make_s3d_howto100m, rename_s3d_howto100m

    arrays = published(golden, "space-to-depth")
    ours, encoder = MilNce(CONFIG), make_s3d_howto100m(None)
    ours.load_state_dict(to_ours(arrays, "file"))
    encoder.load_state_dict(rename_s3d_howto100m(arrays))
    frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        found = ours.eval().embed_video(ShownClips(frames, torch.tensor([1, 1])))
        pixels = frames.permute(0, 4, 1, 2, 3) / 255
        wanted = encoder.head(encoder.eval().trunk(pixels).mean((2, 3, 4)))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_model_on_stored_features_takes_its_part_and_gives_none(golden: Path, tmp_path: Path) -> None:
    arrays = published(golden, "space-to-depth")
    torch.save(arrays, tmp_path / "their.pth")
    model = MilNce(replace(CONFIG, trunk=""))
    loaded = load_initial(model, str(tmp_path / "their.pth"))
    assert loaded.initial == ()
    assert torch.equal(model.fc.weight, arrays["fc.weight"])
    with pytest.raises(SettingsError, match="end-to-end"):
        to_mil_nce(model.state_dict())


def test_texts_fall_where_the_video_is(golden: Path, tmp_path: Path) -> None:
    torch.save(load_golden_weights(golden, "s3d_howto100m"), tmp_path / "s3d_howto100m.pth")
    model = MilNce(MilNceConfig(vocabulary=66_250)).eval()
    assert load_initial(model, str(tmp_path / "s3d_howto100m.pth")).initial == ()
    folder = golden / "video/s3d_howto100m"
    outputs = np.load(folder / "outputs.npz")
    embeddings = {}
    for words in (16, 30):
        with torch.no_grad():
            found = model.embed_text(TextRows(torch.from_numpy(outputs[f"text.ids{words}"]))).numpy()
        reference = outputs[f"text.embedding{words}"]
        assert np.abs(found - reference).max() <= FEATURE * np.abs(reference).max()
        embeddings[words] = found
    cases = json.loads((folder / "spec.json").read_text())["cases"]
    videos = np.stack([outputs[f"{case}.video_embedding"] for case in cases])
    similarity = outputs["similarity"]
    assert np.abs(embeddings[16] @ videos.T - similarity).max() <= FEATURE * np.abs(similarity).max()


def test_another_stem_is_refused(golden: Path, tmp_path: Path) -> None:
    torch.save(published(golden, "plain"), tmp_path / "their.pth")
    with pytest.raises(SettingsError, match=r"trunk\.0\.0\.weight is 64 x 3 x 3 x 7 x 7 there"):
        load_initial(MilNce(CONFIG), str(tmp_path / "their.pth"))
