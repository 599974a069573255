"""What golden/video says an encoder must give, and how far one is from it, relative to each tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlprep.clips.encoder import TorchEncoder, pooled
from vlprep.clips.pixels import network_input
from vlprep.clips.spec import ClipSpec
from vlprep.clips.windows import cut
from vlprep.media.video import Frame

# golden/video/README.md, "Tolerances"
INPUT, LAYER, FEATURE, L2 = 2e-6, 2e-5, 1e-5, 1e-6

LAYERS: dict[str, Callable[[nn.Module], dict[str, nn.Module]]] = {
    "resnet152": lambda trunk: {name: getattr(trunk.images, name) for name in RESNET},
    "resnext101": lambda trunk: {name: getattr(trunk, name) for name in RESNET},
    "s3d": lambda trunk: {f"base.{position}": trunk[position] for position in (0, 3, 6, 12, 15)},
    "s3d_howto100m": lambda trunk: {
        "conv1": trunk[0], "gating": trunk[3], "mixed_3c": trunk[6], "mixed_4f": trunk[12], "mixed_5c": trunk[15]
    },
}  # fmt: skip
RESNET = ("maxpool", "layer1", "layer2", "layer3", "layer4")
CROPS = {"resnet152": (100, 150)}
CROP = (50, 60)


@dataclass(frozen=True)
class GoldenFolder:
    """One encoder's folder."""

    name: str
    spec: Mapping[str, Any]
    frames: Mapping[str, NDArray[np.uint8]]
    outputs: Mapping[str, NDArray[Any]]

    def clips(self, case: str, spec: ClipSpec) -> NDArray[np.uint8]:
        """The case's frames, cut as the recipe says: (N, T, H, W, 3)."""
        frames = stream_of(self.frames[case], spec.fps)
        return np.stack([clip.frames_THW3 for clip in cut(frames, spec)])

    def distances(self, encoder: TorchEncoder, case: str) -> dict[str, float]:
        """Each recorded quantity's distance in units of its tolerance: correct where all are at most 1."""
        clips = self.clips(case, encoder.spec)
        layers = LAYERS[self.name](encoder.trunk)
        seen: dict[str, Tensor] = {}
        handles = [
            module.register_forward_hook(lambda _m, _i, output, layer=layer: seen.__setitem__(layer, output.clone()))
            for layer, module in layers.items()
        ]
        features = encoder.encode(clips)
        for handle in handles:
            handle.remove()
        found = {"input": self._input_distance(network_input(torch.as_tensor(clips), encoder.spec), case)}
        for layer, output in seen.items():
            found |= self._layer_distances(output, case, layer)
        last = seen[next(reversed(layers))]
        wanted = {"feature": features, "feature_mean": features}
        if last.dim() == 5:  # of clips
            wanted |= {"feature_pool2": pooled(last, "pool2")} if self.name == "s3d" else {}
        through_head = encoder.head(wanted.get("feature_pool2", features))
        wanted |= {"logits": through_head, "video_embedding": through_head}
        wanted["feature_l2"] = nn.functional.normalize(features, dim=1)
        for what, value in wanted.items():
            if f"{case}.{what}" in self.outputs:
                found[what] = self._distance(value, f"{case}.{what}", L2 if what == "feature_l2" else FEATURE)
        return found

    def _input_distance(self, input_NCTHW: Tensor, case: str) -> float:
        row, column = CROPS.get(self.name, CROP)
        crop = input_NCTHW[..., row : row + 8, column : column + 8]
        return self._distance(crop[:, :, 0] if self.name == "resnet152" else crop[0], f"{case}.input.crop", INPUT)

    def _layer_distances(self, output: Tensor, case: str, layer: str) -> dict[str, float]:
        of_images = self.name == "resnet152"
        output = (output if of_images else output[0]).float()
        stats = self.spec["cases"][case]["stats"][layer]
        assert list(output.shape) == stats["shape"], layer
        scale = max(abs(stats["min"]), abs(stats["max"])) * LAYER
        values = output.numpy()[tuple(self.outputs[f"{case}.{layer}.index"].T)]
        others = [axis for axis in range(4) if axis != int(of_images)]
        means = output.double().mean(others).numpy()
        return {
            f"{layer}.value": float(np.abs(values - self.outputs[f"{case}.{layer}.value"]).max() / scale),
            f"{layer}.channel_mean": float(np.abs(means - self.outputs[f"{case}.{layer}.channel_mean"]).max() / scale),
        }

    def _distance(self, value: Tensor, name: str, tolerance: float) -> float:
        reference = self.outputs[name]
        scale = 1.0 if tolerance is L2 else np.abs(reference).max()
        return float(np.abs(value.numpy().reshape(reference.shape) - reference).max() / scale / tolerance)


def load_golden_weights(golden: Path, name: str) -> dict[str, Tensor]:
    import golden_weights

    return {
        key: torch.from_numpy(np.array(value)) for key, value in golden_weights.load(golden / "video" / name).items()
    }


def stream_of(pixels_THW3: NDArray[np.uint8], fps: Fraction, first: int = 0) -> list[Frame]:
    """Frames as a decoder gives them, numbered from `first`."""
    return [
        Frame(0, first + n, float((first + n) / fps), float((first + n) / fps), n, pixels)
        for n, pixels in enumerate(pixels_THW3)
    ]
