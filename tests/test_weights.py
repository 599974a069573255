from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

from vlprep.errors import SettingsError
from vlprep.weights import PublicPlace, describe, is_random, load_arrays, random_seed, resolve, sha256_of

PLACE = PublicPlace(file="butd/model.pth", page="https://example.org/models")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLPREP_WEIGHTS", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_a_path_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"x")
    assert resolve(str(file)) == file
    with pytest.raises(SettingsError, match=r"nothing\.pth: no such file"):
        resolve(tmp_path / "nothing.pth")


def test_what_cannot_be_downloaded_is_asked_for_and_then_found(folder: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(None, default=PLACE)
    assert PLACE.page in str(caught.value)
    assert str(folder / "butd/model.pth") in str(caught.value)
    (folder / "butd").mkdir(parents=True)
    (folder / "butd/model.pth").write_bytes(b"x")
    assert resolve(None, default=PLACE) == folder / "butd/model.pth"


def test_no_public_place() -> None:
    with pytest.raises(SettingsError, match="--weights FILE"):
        resolve(None)


def hub(monkeypatch: pytest.MonkeyPatch, *, local: set[str], remote: set[str] | None) -> list[str]:
    """A Hub with these files; `remote=None` is no network. Returns the log of downloads."""
    downloads: list[str] = []

    def hf_hub_download(repo: str, file: str, local_files_only: bool = False) -> str:
        if file in local:
            return f"/cache/{repo}/{file}"
        if local_files_only or remote is None:
            raise LocalEntryNotFoundError("offline")
        if file not in remote:
            raise EntryNotFoundError("404")
        downloads.append(file)
        return f"/cache/{repo}/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return downloads


def test_the_hub_by_file_and_by_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = hub(monkeypatch, local=set(), remote={"pytorch_model.bin", "x/y.pth"})
    assert resolve("hf://a/b/x/y.pth") == Path("/cache/a/b/x/y.pth")
    assert resolve("hf://a/b") == Path("/cache/a/b/pytorch_model.bin")
    assert downloads == ["x/y.pth", "pytorch_model.bin"]
    with pytest.raises(SettingsError, match="has no z"):
        resolve("hf://a/b/z")
    with pytest.raises(SettingsError, match="hf://owner/repo"):
        resolve("hf://a")


def test_the_hub_offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    hub(monkeypatch, local={"kept.bin"}, remote=None)
    assert resolve("hf://a/b/kept.bin") == Path("/cache/a/b/kept.bin")
    place = PublicPlace(file="butd/model.bin", page="https://huggingface.co/a/b", url="hf://a/b/model.bin")
    with pytest.raises(SettingsError) as caught:
        resolve(None, default=place)
    for part in ("model.bin", "huggingface.co/a/b", str(folder / "butd/model.bin")):
        assert part in str(caught.value)


def test_a_download_that_fails(folder: Path) -> None:
    place = PublicPlace(file="s3d/net.pth", page="https://example.org", url="http://127.0.0.1:9/net.pth")
    with pytest.raises(SettingsError, match=r"cannot download http://127\.0\.0\.1:9/net\.pth"):
        resolve(None, default=place)
    assert not (folder / "s3d/net.pth").exists()


def test_descriptions() -> None:
    assert describe(None, default=PLACE) == PLACE.page
    assert describe("random:3") == "random:3"
    assert is_random("random:3")
    assert not is_random("x.pth")
    assert not is_random(None)
    assert random_seed("random:3") == 3
    with pytest.raises(SettingsError, match="random:0"):
        random_seed("random:x")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()


ARRAYS = {"a.weight": np.arange(4, dtype=np.float32).reshape(2, 2), "n": np.int64(3)}


def written(path: Path) -> Path:
    tensors = OrderedDict((name, torch.from_numpy(np.asarray(array))) for name, array in ARRAYS.items())
    match path.name:
        case "plain.safetensors":
            save_file(tensors, path)
        case "py2.pkl":
            arrays = {name: np.asarray(array) for name, array in ARRAYS.items()}
            path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, 2))
        case "parallel.pth":
            torch.save({"state_dict": {f"module.{name}": t for name, t in tensors.items()}, "epoch": 3}, path)
        case "old.pth":
            torch.save({"model": tensors, "iteration": 3}, path, _use_new_zipfile_serialization=False)
        case "numpy.pth":
            torch.save({"model": {name: np.asarray(array) for name, array in ARRAYS.items()}}, path)
        case "flat.bin":
            torch.save(tensors, path)
        case "zip.pkl":
            torch.save({"model": tensors}, path)
    return path


@pytest.mark.parametrize(
    "name", ["plain.safetensors", "py2.pkl", "parallel.pth", "old.pth", "numpy.pth", "flat.bin", "zip.pkl"]
)
def test_every_envelope_gives_the_same_arrays(tmp_path: Path, name: str) -> None:
    found = load_arrays(written(tmp_path / name))
    assert found.keys() == ARRAYS.keys()
    torch.testing.assert_close(found["a.weight"], torch.from_numpy(ARRAYS["a.weight"]))


def test_what_is_not_a_checkpoint_is_named(tmp_path: Path) -> None:
    for name, content in (
        ("garbage.pth", b"garbage" * 100),
        ("garbage.safetensors", b"garbage" * 100),
        ("empty.bin", b""),
        ("list.pkl", pickle.dumps([1, 2])),
        ("nothing.pkl", pickle.dumps({"model": {"epoch": 3}})),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingsError, match=name):
            load_arrays(tmp_path / name)


class _Code:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (print, ("run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"a": torch.ones(1), "b": _Code()}}, tmp_path / "bad.pth")
    with pytest.raises(SettingsError, match=r"bad\.pth"):
        load_arrays(tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


class Model:
    pass


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin"])
@pytest.mark.parametrize("content", [b"junk", b"", b"PK\x03\x04 cut off", pickle.dumps(Model(), 2), bytes(range(256))])
def test_a_file_of_something_else_is_told_without_unsafe_advice(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=r"not a checkpoint of plain arrays.*\.safetensors") as caught:
        load_arrays(tmp_path / name)
    assert "weights_only" not in str(caught.value)


def test_a_whole_model_is_told_without_unsafe_advice(tmp_path: Path) -> None:
    torch.save(Model(), tmp_path / "w.pt")
    with pytest.raises(SettingsError, match="state_dict") as caught:
        load_arrays(tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value)
