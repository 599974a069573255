"""The wheel: built from this tree, it holds what users need and nothing else, and works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CONSOLE_SCRIPT = """
from importlib.metadata import entry_points
import vlprep
print(vlprep.__file__)
(script,) = entry_points(group="console_scripts", name="vlprep")
script.load()()
"""
"""What the installed `vlprep` does, by the wheel's own metadata."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPOSITORY]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def sources(folder: str, *suffixes: str) -> Iterator[str]:
    tracked = subprocess.run(
        ["git", "ls-files", folder], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return (name for name in tracked if PurePosixPath(name).suffix in suffixes)


def test_every_module_is_in_it(names):
    assert set(sources("vlprep", ".py")) <= names
    assert {name.removeprefix("cli/") for name in sources("cli", ".py")} <= names


def test_data_is_in_it(names):
    data = set(sources("vlprep", ".safetensors", ".txt", ".typed", ".json"))
    assert "vlprep/py.typed" in data
    assert "vlprep/detect/demo/weights.safetensors" in data
    assert any("vocab" in name for name in data)
    assert data <= names


def test_recipes_are_in_it(names):
    recipes = {f"vlprep/_recipes/{PurePosixPath(name).name}" for name in sources("pipelines", ".toml")}
    assert recipes <= names


def test_nothing_else_lands_in_site_packages(names):
    tops = {name.split("/")[0] for name in names}
    version = next(top for top in tops if top.endswith(".dist-info"))
    assert tops == {"vlprep", "vlprep_cli", version}
    assert not [name for name in names if "test" in PurePosixPath(name).name or "__pycache__" in name]


def test_it_runs_outside_the_checkout(wheel, tmp_path):
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = next((environment / "lib").glob("python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    (site / "dependencies.pth").write_text(_without_editable(tmp_path / "dependencies"))
    answer = subprocess.run(
        [environment / "bin" / "python", "-I", "-c", CONSOLE_SCRIPT, "--help"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    where, usage = answer.stdout.splitlines()[:2]
    assert Path(where).is_relative_to(environment)
    assert usage.startswith("Usage: ")


def _without_editable(folder: Path) -> str:
    """A folder of links to this environment's packages, less the checkout's own: a stand-in for downloading them."""
    folder.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith("vlprep"):
            (folder / entry.name).symlink_to(entry)
    return f"{folder}\n"
