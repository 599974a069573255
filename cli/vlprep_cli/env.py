"""`vlprep env`: what a bug report needs to say about a machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

import click

from vlprep import __version__
from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import bytes_text, print_facts, print_json

_LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "pyarrow",
    "av",
    "decord",
    "torchcodec",
    "faiss-cpu",
    "faiss-gpu",
    "gensim",
    "safetensors",
    "huggingface-hub",
    "click",
    "rich",
    "detectron2",
    "transformers",
    "datasets",
)


@click.command()
@json_option
@common_options
def env(as_json: bool) -> None:
    """Versions and devices, for a bug report."""
    facts = {**_machine(), **_libraries(), **_devices()}
    if as_json:
        print_json(facts)
    else:
        print_facts((name, "not installed" if value is None else str(value)) for name, value in facts.items())


def _machine() -> dict[str, Any]:
    from vlprep.engines.devices import cores
    from vlprep.weights import weights_folder

    return {
        "vlprep": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "cores": cores(),
        "memory": bytes_text(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "weights folder": str(weights_folder()),
    }


def _libraries() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = None
    return found


def _devices() -> dict[str, Any]:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda": f"{torch.version.cuda}: {', '.join(names)}" if names else "no device",
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
