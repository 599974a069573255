"""Which device a process takes."""

from __future__ import annotations

import pytest
import torch

from vlprep.errors import SettingsError
from vlprep.pretrain.distributed import find_device


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 0)
    assert find_device("auto", local=3, processes=4) == find_device("cpu") == torch.device("cpu")
    with pytest.raises(SettingsError, match="--device cuda: torch finds no CUDA device"):
        find_device("cuda")


def test_each_process_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 2)
    assert find_device("auto") == torch.device("cuda", 0)
    assert find_device("cuda", local=1, processes=2) == torch.device("cuda", 1)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(SettingsError, match="no cuda:2; torch sees 2"):
        find_device("cuda", local=2, processes=3)
    with pytest.raises(SettingsError, match="each takes its own"):
        find_device("cuda:0", local=1, processes=2)


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:0,1", "CPU"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="write auto, cpu, cuda or cuda:N"):
        find_device(text)
