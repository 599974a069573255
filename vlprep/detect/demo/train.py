"""Train the `demo` detector's shipped weights: `python -m vlprep.detect.demo.train`.

About 10 CPU-minutes on one thread. Seeded throughout: a repeated run on one machine gives the same file. Scenes are
rendered as they are needed, half of them passed through JPEG and a quarter enlarged, since users' pictures have been
through both.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from vlprep.detect.demo.network import FEATURE_DIM, demo_network
from vlprep.media.scenes import CLASS_NAMES, COLOURS, SHAPES, Scene, random_scene, render

WEIGHTS = Path(__file__).with_name("weights.safetensors")
_FIRST_SCENE = 500_000_000
"""Seeds from here on are for training only; `write_coco_folder` with small seeds never reaches them."""


class FactorisedPredictor(nn.Module):
    """Class scores as a colour's score plus a shape's, one box regressor for all: 19 rows to learn in place of 245.

    Every picture of something red then teaches all red classes. Sums of linear layers are linear, so the result is
    written out as the plain predictor that the network has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.background = nn.Linear(FEATURE_DIM, 1)
        self.colour = nn.Linear(FEATURE_DIM, len(COLOURS))
        self.shape = nn.Linear(FEATURE_DIM, len(SHAPES))
        self.box = nn.Linear(FEATURE_DIM, 4)

    def forward(self, features_RD: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, 1 + classes) and box deltas (R, 4 (1 + classes))."""
        plain = self.plain_weights()
        return tuple(  # type: ignore[return-value]
            nn.functional.linear(features_RD, plain[f"{name}.weight"], plain[f"{name}.bias"])
            for name in ("cls_score", "bbox_pred")
        )

    def plain_weights(self) -> dict[str, Tensor]:
        """The state of the equal `FastRCNNPredictor`; classes are in the order of `CLASS_NAMES`, colour by colour."""
        merged = {}
        for part in ("weight", "bias"):
            background, colour, shape, box = (
                getattr(layer, part) for layer in (self.background, self.colour, self.shape, self.box)
            )
            pairs = (colour[:, None] + shape[None]).flatten(0, 1)
            merged[f"cls_score.{part}"] = torch.cat([background, pairs])
            merged[f"bbox_pred.{part}"] = torch.cat([box] * (1 + len(CLASS_NAMES)))
        return merged


def train(*, steps: int, seed: int = 0, batch: int = 16, peak_lr: float = 1.5e-3) -> dict[str, Tensor]:
    """Train from scratch for `steps` batches of scenes; gives the state dict, floating tensors in float16."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network: Any = demo_network().train()
    predictor = network.roi_heads.box_predictor = FactorisedPredictor()
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak_lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=peak_lr, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        first = _FIRST_SCENE + (seed * steps + step) * batch
        examples = [_example(random_scene(first + index), rng) for index in range(batch)]
        losses: dict[str, Tensor] = network([image for image, _ in examples], [target for _, target in examples])
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 49 or step == 0:
            told = " ".join(f"{name.removeprefix('loss_')} {value.item():.3f}" for name, value in losses.items())
            print(f"step {step + 1}/{steps}  {told}  {time.process_time():.0f} CPU s", file=sys.stderr, flush=True)
    state = {name: tensor for name, tensor in network.state_dict().items() if "box_predictor" not in name}
    state |= {f"roi_heads.box_predictor.{name}": tensor.detach() for name, tensor in predictor.plain_weights().items()}
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _example(scene: Scene, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    picture = render(scene)
    boxes = np.array([thing.box for thing in scene.objects], np.float32)
    if rng.random() < 0.5:
        picture = _through_jpeg(picture, quality=int(rng.integers(70, 96)))
    if rng.random() < 0.25:
        factor = rng.uniform(1.2, 2.5)
        width, height = round(scene.width * factor), round(scene.height * factor)
        picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        boxes *= np.array([width / scene.width, height / scene.height] * 2, np.float32)
    labels = [1 + CLASS_NAMES.index(thing.class_name) for thing in scene.objects]
    pixels = torch.tensor(picture).permute(2, 0, 1).float() / 255
    return pixels, {"boxes": torch.from_numpy(boxes), "labels": torch.tensor(labels)}


def _through_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=650)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    state = train(steps=options.steps, seed=options.seed)
    save_file(state, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
