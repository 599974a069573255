"""Device names as users write them."""

from __future__ import annotations

import pytest

from vlprep.engines import devices
from vlprep.engines.devices import parse_devices, visible_alone
from vlprep.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("cpu", 2, ("cpu",)),
        ("auto", 0, ("cpu",)),
        ("auto", 2, ("cuda:0", "cuda:1")),
        ("cuda", 2, ("cuda:0", "cuda:1")),
        ("cuda:1", 2, ("cuda:1",)),
        ("cuda:1,0,1", 2, ("cuda:1", "cuda:0")),
    ],
)
def test_devices(monkeypatch, text, count, expected):
    monkeypatch.setattr(devices, "cuda_count", lambda: count)
    assert parse_devices(text) == expected


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        ("gpu", 2, "--device gpu: write auto, cpu, cuda"),
        ("cuda:", 2, "write auto, cpu"),
        ("cuda", 0, "torch finds no CUDA device here"),
        ("cuda:0,2", 2, "there is no cuda:2; torch sees 2"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, text, count, message):
    monkeypatch.setattr(devices, "cuda_count", lambda: count)
    with pytest.raises(SettingsError, match=message):
        parse_devices(text)


def test_a_worker_sees_its_own_card_within_those_that_the_user_chose(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_alone("cuda:1") == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-8f3a")
    assert visible_alone("cuda:1") == {"CUDA_VISIBLE_DEVICES": "GPU-8f3a"}
    assert visible_alone("cpu") == {"CUDA_VISIBLE_DEVICES": ""}
