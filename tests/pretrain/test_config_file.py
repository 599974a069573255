"""`model.json`: a model's sizes, written and read."""

from __future__ import annotations

import pytest

from vlprep.errors import SettingsError
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.models.config_file import read_model_config, write_model_config
from vlprep.pretrain.models.single_stream import SingleStreamConfig


@pytest.mark.parametrize(
    "config",
    [
        SingleStreamConfig(vocabulary=30_522, region_dim=2048, region_classes=1601),
        SingleStreamConfig(
            vocabulary=8000,
            encoder=EncoderConfig(layers=2, hidden=48, heads=4, dropout=0, norm_eps=1e-5),
            visual_vocabulary=20_736,
            centroid_dim=1024,
            freeze_centroids=True,
            attention="jagged",
        ),
    ],
)
def test_what_is_written_is_read(tmp_path, config) -> None:
    write_model_config(tmp_path, config)
    assert read_model_config(tmp_path) == config


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no run of `vlprep pretrain`"),
        ("{", r"model\.json is damaged"),
        ('{"positions": 512}', r"model\.json is damaged.*vocabulary"),
        ('{"vocabulary": 10, "layers": 2}', r"model\.json: no setting layers"),
    ],
)
def test_damage_is_named(tmp_path, content, complaint) -> None:
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(SettingsError, match=complaint):
        read_model_config(tmp_path)
