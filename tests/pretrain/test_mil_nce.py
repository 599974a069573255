"""MIL-NCE's loss against the published code's and the paper's, on one process and on four."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from vlprep.pretrain.distributed import gathered, join_world
from vlprep.pretrain.objectives.contrastive import Positives, mil_nce

RANKS = 4
CLIPS, CANDIDATES, JOINT = 12, 3, 8


@pytest.mark.parametrize("case", ["milnce.multi", "milnce.single"])
@pytest.mark.parametrize(("positives", "suffix"), [("once", "_positives_once"), ("twice", "")])
def test_loss_and_gradients_are_the_published_ones(golden: Path, case: str, positives: Positives, suffix: str) -> None:
    folder = golden / "pretraining"
    arrays = np.load(folder / "losses.npz")
    expected = json.loads((folder / "losses.json").read_text())["cases"][case]["expected"]
    clips = torch.from_numpy(arrays[f"{case}.in.video"]).requires_grad_()
    texts = torch.from_numpy(arrays[f"{case}.in.text"]).requires_grad_()
    loss = mil_nce(clips, texts.unflatten(0, (len(clips), -1)), positives=positives, gather=False).loss_B.mean()
    loss.backward()
    assert loss.item() == pytest.approx(expected[f"loss{suffix}"], rel=1e-5, abs=1e-6)
    for name, tensor in {"video": clips, "text": texts}.items():
        want = arrays[f"{case}.out.grad_{name}{suffix}"]
        np.testing.assert_allclose(tensor.grad.numpy(), want, rtol=1e-5, atol=2e-6)


def test_positives_that_count_twice_leave_log_2() -> None:
    clips = 10 * torch.eye(4)
    for positives, least in (("once", 0.0), ("twice", float(np.log(2)))):
        loss = mil_nce(clips, clips[:, None], positives=positives, gather=False).loss_B  # type: ignore[arg-type]
        torch.testing.assert_close(loss, torch.full((4,), least), atol=1e-4, rtol=0)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(CLIPS, JOINT, generator=draw), torch.randn(CLIPS, CANDIDATES, JOINT, generator=draw)


def share(folder: Path, rank: int, begins: list[int], port: int) -> None:
    """One process of four: its part of the batch through one shared layer, as the trainer sums it up."""
    torch.set_num_threads(1)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    clips, texts = (part[begins[rank] : begins[rank + 1]] for part in batch())
    with join_world("cpu") as world:
        weight = torch.eye(JOINT, requires_grad=True)
        clips.requires_grad_()
        contrast = mil_nce(clips @ weight, texts @ weight, positives="once", gather=True)
        (contrast.loss_B.sum() / CLIPS).backward()
        rows, own = gathered(torch.full((rank + 1,), float(rank)))
        found = {
            "loss": float(world.add(contrast.loss_B.detach().sum())) / CLIPS,
            "weight": world.add(weight.grad).tolist(),
            "clips": clips.grad.tolist(),
            "rows": rows.tolist(),
            "own": [own.start, own.stop],
        }
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("begins", [[0, 3, 6, 9, 12], [0, 1, 5, 7, 12]], ids=["equal", "ragged"])
def test_four_processes_are_one_with_their_batches_together(tmp_path: Path, begins: list[int]) -> None:
    clips, texts = batch()
    weight = torch.eye(JOINT, requires_grad=True)
    clips.requires_grad_()
    loss = mil_nce(clips @ weight, texts @ weight, positives="once", gather=False).loss_B.mean()
    loss.backward()
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlprep.pretrain.objectives.contrastive"])
    processes = [context.Process(target=share, args=(tmp_path, rank, begins, port)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for rank in range(RANKS):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["loss"] == pytest.approx(loss.item(), rel=1e-6)
        torch.testing.assert_close(torch.tensor(found["weight"]), weight.grad)
        torch.testing.assert_close(torch.tensor(found["clips"]), clips.grad[begins[rank] : begins[rank + 1]])
        assert found["rows"] == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]
        assert found["own"] == [rank * (rank + 1) // 2, (rank + 1) * (rank + 2) // 2]
