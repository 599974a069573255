"""Clip features: the whole pipeline against its parts, and against the usual script, in CPU seconds, in one run.

    python benchmarks/video.py             S3D on the two sample videos: about four minutes
    python benchmarks/video.py --copies 4  more videos

CPU seconds are those of this process and of the decoding processes that it starts. The usual script has the same
weights and the same frames, one video at a time: decode it whole, make floats of it, run torchvision's own S3D clip by
clip. Weights are made up; no figure depends on them.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import SHARED, print_table, save
from torch import Tensor

from vlprep.clips.batches import Batcher
from vlprep.clips.encoder import ClipEncoder, Precision, build_encoder
from vlprep.clips.pixels import network_input
from vlprep.clips.presets import preset
from vlprep.clips.s3d import make_s3d
from vlprep.clips.spec import ClipSpec
from vlprep.clips.windows import cut
from vlprep.engines.base import Job
from vlprep.media.video import Frame, FrameStream
from vlprep.media.video.decode import open_video
from vlprep.media.video.pool import DecoderPool
from vlprep.stages.extract_video import EncoderChoice, VideoSettings, video_stage
from vlprep.stages.run import RunSettings
from vlprep.stages.video_worker import VideoWorker

WEIGHTS = "random:0"
_DECODING_ROUNDS = 5
"""It is so quick that starting the processes shows."""
SAMPLES = SHARED / "samples" / "howto100m" / "videos"


@dataclass(slots=True)
class Cost:
    """Of one way, for all videos."""

    cpu: float = 0.0
    wall: float = 0.0


@contextmanager
def measured(cost: Cost) -> Iterator[None]:
    """CPU seconds here and in children that end within the block."""
    cpu, wall = _cpu(), time.perf_counter()
    yield
    cost.cpu += _cpu() - cpu
    cost.wall += time.perf_counter() - wall


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class NoBeat:
    """Nobody is watching."""

    def begin(self, item: str) -> None: ...
    def set_aside(self, item: str) -> None: ...
    def done(self, item: str) -> None: ...


def pipeline(dataset: Path, names: Sequence[str], precision: Precision = "fp32") -> Cost:
    """The stage's worker on one part, loading not counted."""
    settings = VideoSettings(
        encoders=tuple(EncoderChoice(name=name, weights=WEIGHTS) for name in names), precision=precision
    )
    with tempfile.TemporaryDirectory(prefix="vlprep-bench-") as out:
        run = RunSettings(device="cpu", out=Path(out))
        stage = video_stage(dataset, settings, run).at(Path(out))
        store = stage.open()
        store.plan(stage.items, len(stage.items))
        worker = VideoWorker(device="cpu", threads=torch.get_num_threads(), store=store, **stage.arguments)
        cost = Cost()
        with measured(cost):
            done = worker.run(Job(store.pending()[0]), NoBeat())
            worker.decoders.close()
        assert done.failures == 0
    return cost


def decoding(videos: Sequence[Path], streams: Sequence[FrameStream]) -> Cost:
    """The decoding processes alone, their frames thrown away."""
    cost = Cost()
    with measured(cost), DecoderPool() as pool:
        for _ in pool.decode([(path.name, path) for path in videos], streams):
            pass
    return cost


def clips_of(videos: Sequence[Path], spec: ClipSpec) -> list[list[np.ndarray]]:
    """All clips of each video."""
    found = []
    for path in videos:
        with open_video(path, [spec.frame_stream()]) as frames:
            found.append([clip.frames_THW3 for clip in cut(frames, spec)])
    return found


def network(videos: Sequence[Sequence[np.ndarray]], encoder: ClipEncoder, batch_pixels: int) -> Cost:
    """The network alone, on clips that are there already, in the batches that the worker makes."""
    batcher: Batcher[int] = Batcher(batch_pixels)
    batches = []
    for place, clips in enumerate(videos):
        for clip in clips:
            batches += batcher.add(place, place, clip)
        batches += batcher.end(place)
    batches += batcher.flush()
    cost = Cost()
    with measured(cost):
        for batch in batches:
            encoder.encode(batch.clips_NTHW3)
    return cost


class UsualScript:
    """torchvision's S3D as it comes, clip by clip; one video at a time, whole in memory as floats."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.trunk = make_s3d().trunk.eval()
        self.spec = preset("s3d").spec

    @torch.inference_mode()
    def __call__(self, path: Path, dtype: torch.dtype) -> Tensor:
        with open_video(path, [self.spec.frame_stream()]) as frames:
            pixels = [frame.pixels for frame in frames if isinstance(frame, Frame)]
        video_THW3 = torch.from_numpy(np.stack(pixels)).float()
        missing = -len(video_THW3) % self.spec.clip_frames
        video_THW3 = torch.cat([video_THW3, torch.zeros(missing, *video_THW3.shape[1:])])
        features = []
        for clip_THW3 in video_THW3.split(self.spec.clip_frames):
            x_1CTHW = network_input(clip_THW3[None], self.spec).contiguous()
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                features.append(self.trunk(x_1CTHW).mean((2, 3, 4)).float())
        return torch.cat(features)


def usual(videos: Sequence[Path], dtype: torch.dtype) -> Cost:
    script = UsualScript()
    cost = Cost()
    with measured(cost):
        for path in videos:
            script(path, dtype)
    return cost


def fastest(call: Callable[[], Cost], rounds: int) -> Cost:
    costs = [call() for _ in range(rounds)]
    return Cost(min(cost.cpu for cost in costs), min(cost.wall for cost in costs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=1, help="of each sample video")
    parser.add_argument("--rounds", type=int, default=1, help="of which the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="of the network")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="vlprep-bench-") as scratch:
        videos = [
            Path(shutil.copy(path, Path(scratch) / f"{number}-{path.name}"))
            for path in sorted(SAMPLES.iterdir())
            for number in range(options.copies)
        ]
        result = compare(Path(scratch), videos, options.rounds)
    save("video", {"videos": len(videos), "threads": options.threads, **result})


def compare(dataset: Path, videos: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Run every way, print the tables."""
    from vlprep.stages.video_worker import _BATCH_PIXELS

    spec, other = preset("s3d").spec, preset("resnet152").spec
    clips = clips_of(videos, spec)
    ways: dict[str, Callable[[], Cost]] = {
        "decoding alone": lambda: decoding(videos, [spec.frame_stream()]),
        "decoding for two encoders": lambda: decoding(videos, [spec.frame_stream(), other.frame_stream()]),
        "network alone": lambda: network(clips, build_encoder("s3d", weights=WEIGHTS), _BATCH_PIXELS["cpu"]),
        "pipeline, fp32": lambda: pipeline(dataset, ["s3d"]),
        "pipeline, bf16": lambda: pipeline(dataset, ["s3d"], "bf16"),
        "usual script, fp32": lambda: usual(videos, torch.float32),
        "usual script, bf16": lambda: usual(videos, torch.bfloat16),
    }
    costs = {
        name: fastest(way, max(rounds, _DECODING_ROUNDS * name.startswith("decoding"))) for name, way in ways.items()
    }
    number = sum(map(len, clips))
    print_table(
        f"S3D, {len(videos)} videos, {number} clips",
        ["", "CPU s", "CPU s a clip", "wall s"],
        [[name, cost.cpu, cost.cpu / number, cost.wall] for name, cost in costs.items()],
    )
    cpu = {name: cost.cpu for name, cost in costs.items()}
    slower = max(costs["decoding alone"].wall, costs["network alone"].wall)
    ratios = {
        "pipeline over decoding + network, CPU": cpu["pipeline, fp32"] / (cpu["decoding alone"] + cpu["network alone"]),
        "slower part over pipeline, wall": slower / costs["pipeline, fp32"].wall,
        "usual script over ours, fp32": cpu["usual script, fp32"] / cpu["pipeline, fp32"],
        "usual script (fp32) over ours in bf16": cpu["usual script, fp32"] / cpu["pipeline, bf16"],
        "usual script (bf16) over ours in bf16": cpu["usual script, bf16"] / cpu["pipeline, bf16"],
        "decoding for two encoders over one": cpu["decoding for two encoders"] / cpu["decoding alone"],
    }
    targets = ["<= 1.1", ">= 0.9", ">= 1.5", ">= 2.5 if bf16 is quicker here", "", "<= 1.15"]
    print_table(
        "Ratios of this run",
        ["", "", "wanted"],
        [[name, ratio, target] for (name, ratio), target in zip(ratios.items(), targets, strict=True)],
    )
    return {
        "clips": number,
        "cpu_seconds": cpu,
        "wall_seconds": {name: cost.wall for name, cost in costs.items()},
        "ratios": ratios,
    }


if __name__ == "__main__":
    main()
