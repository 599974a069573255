"""Several processes: what they train together is what one process trains by accumulation."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from pretrain.stores import learnable_images
from pretrain.test_trainer import TRAIN, make_trainer
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import checkpoints, read_model
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.distributed import World, join_world
from vlprep.pretrain.trainer import Logged

MICRO_BATCHES, STEPS = 4, 6


@pytest.fixture(scope="module")
def context() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that find torch imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["vlprep.pretrain.trainer", "vlprep.pretrain.setup", "vlprep.shards", allreduce_hook.__module__]
    )
    yield context
    multiprocessing.forkserver._forkserver._stop()


def train(stores: DatasetStores, folder: Path, rank: int, size: int, port: int) -> None:
    """One process of `size`; leaves what it saw in `rank-N.json`."""
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    settings = replace(TRAIN, steps=STEPS, accumulate=MICRO_BATCHES // size)
    with join_world("cpu") as world:
        trainer = make_trainer(stores, folder, settings, "mlm itm mrfr", world=world)
        seen: dict[str, int] = {}
        make = trainer.batches.__class__.__getitem__

        class Recording(trainer.batches.__class__):  # type: ignore[name-defined, misc]
            def __getitem__(self, key):  # type: ignore[no-untyped-def]
                batch = make(self, key)
                seen[f"{key[0]} {key[1]}"] = zlib.crc32(batch.inputs.text.ids_P.numpy().tobytes())
                return batch

        trainer.batches.__class__ = Recording
        reductions: list[int] = []
        if size > 1:

            def counted(state, bucket):  # type: ignore[no-untyped-def]
                reductions.append(trainer.state.step)
                return allreduce_hook(None, bucket)

            trainer.module.register_comm_hook(None, counted)
        logged: list[Logged] = []
        trainer.run(lambda event: logged.append(event) if isinstance(event, Logged) else None)
        found = {
            "seen": seen,
            "reductions": reductions,
            "losses": [dict(entry.losses) for entry in logged],
            "norms": [entry.grad_norm for entry in logged],
            "state": asdict(trainer.state),
        }
        (folder / f"rank-{rank}.json").write_text(json.dumps(found))


def train_together(context, stores: DatasetStores, folder: Path, size: int):  # type: ignore[no-untyped-def]
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=train, args=(stores, folder, rank, size, port)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(size)]


def test_one_two_and_four_processes_train_alike(context, tmp_path) -> None:
    stores = learnable_images(tmp_path / "stores")
    [alone] = train_together(context, stores, tmp_path / "1", 1)
    weights = read_model(checkpoints(tmp_path / "1" / "checkpoints")[-1])
    assert len(alone["seen"]) == MICRO_BATCHES * STEPS
    for size in (2, 4):
        ranks = train_together(context, stores, tmp_path / str(size), size)
        assert sum(len(rank["seen"]) for rank in ranks) == MICRO_BATCHES * STEPS  # each micro-batch once
        assert {key: value for rank in ranks for key, value in rank["seen"].items()} == alone["seen"]
        for rank in ranks:
            assert rank["state"] == alone["state"]
            assert rank["norms"] == pytest.approx(alone["norms"], rel=1e-3)
            assert rank["reductions"] == list(range(STEPS)), "gradients travel once a step"
            for ours, theirs in zip(rank["losses"], alone["losses"], strict=True):
                assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
        trained = read_model(checkpoints(tmp_path / str(size) / "checkpoints")[-1])
        for name, tensor in weights.items():
            torch.testing.assert_close(trained[name], tensor, rtol=1e-3, atol=1e-4, msg=f"{name}, {size} processes")


def test_a_run_goes_on_with_other_processes_but_not_with_other_steps(context, tmp_path) -> None:
    stores = learnable_images(tmp_path / "stores")
    train_together(context, stores, tmp_path / "2", 2)
    saved = checkpoints(tmp_path / "2" / "checkpoints")[-1]
    make_trainer(stores, tmp_path, replace(TRAIN, accumulate=4), "mlm itm mrfr", world=World()).resume(saved)
    with pytest.raises(SettingsError, match="4 micro-batches a step"):
        make_trainer(stores, tmp_path, replace(TRAIN, accumulate=2), "mlm itm mrfr", world=World()).resume(saved)


def test_torchrun_runs_the_command(tmp_path) -> None:
    """Two processes report once and log what one process logs."""
    from stages.small_datasets import give_tokenizer

    learnable_images(tmp_path / "vlprep")
    give_tokenizer(tmp_path / "vlprep" / "text")
    shrink = "model.layers=1 model.hidden=16 model.heads=2 model.intermediate=32 batches.tokens=150 train.log_every=2"
    words = [*(f"--set={word}" for word in shrink.split()), "--steps=4", "--validate-every=2", "--device=cpu"]
    command = Path(sys.executable).with_name("vlprep")

    def pretrain(out: str, *start: object, accumulate: int) -> tuple[str, list[dict[str, object]]]:
        arguments = [
            *start,
            command,
            "pretrain",
            tmp_path,
            *words,
            f"--accumulate={accumulate}",
            "--out",
            tmp_path / out,
        ]
        done = subprocess.run([str(word) for word in arguments], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
        return done.stdout, [json.loads(line) for line in lines]

    torchrun = Path(sys.executable).with_name("torchrun")
    printed, together = pretrain("two", torchrun, "--standalone", "--nproc-per-node=2", "--no-python", accumulate=1)
    _, alone = pretrain("one", accumulate=2)
    assert printed.count("4 steps; checkpoint") == 1
    assert [(entry["kind"], entry["step"]) for entry in together] == [(entry["kind"], entry["step"]) for entry in alone]
    for ours, theirs in zip(together, alone, strict=True):
        name = "losses" if ours["kind"] == "train" else "figures"
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3)
