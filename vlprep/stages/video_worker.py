"""The worker of `extract-video`: videos are decoded in processes of their own, ahead of the networks.

The main thread cuts frames into clips and clips into batches (by rules that know no clock, see `vlprep.clips.batches`)
while the device works on the batch before. Frames wait in a buffer of bounded size, and nothing but a video's features
grows with its length.

Shape suffixes: N clips of a batch, T clips of a video, D feature size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.clips.batches import Batch, Batcher
from vlprep.clips.encoder import ClipEncoder
from vlprep.clips.windows import Clip, Cutter
from vlprep.engines.base import Beat, Job, PartDone
from vlprep.errors import ItemError
from vlprep.media.video import DecodeSummary, Frame, FrameStream, VideoInfo
from vlprep.media.video.pool import DecoderPool
from vlprep.media.video.process import Word
from vlprep.stages.extract_video import VideoSettings, load_encoder
from vlprep.stages.flow import Stopwatch
from vlprep.stages.sink import Row, Sink, do_part
from vlprep.stages.store_group import StoreGroup

_BATCH_PIXELS = {"cpu": 4 << 20, "cuda": 32 << 20}
"""Of all frames of a batch: 2 or 21 clips of S3D."""
_CORES_A_DECODER = {"cpu": 4, "cuda": 1}
"""On a CPU the network is what takes long."""


class VideoWorker:
    """Loads the encoders once, then does part after part."""

    def __init__(
        self,
        *,
        device: str,
        threads: int,
        store: StoreGroup,
        dataset: Path,
        settings: VideoSettings,
        silence: float,
        source_ids: Mapping[str, str],
        odd_paths: Mapping[str, Path],
    ) -> None:
        """
        Args:
            silence: Seconds without a sign of life after which a decoding process counts as hung.
            source_ids: The dataset's own ids by item, where it has them.
            odd_paths: Files by item where the id may not be the path: names that are not UTF-8, or have a backslash.
        """
        kind = torch.device(device).type
        if kind != "cpu":
            torch.set_num_threads(1)  # the cores belong to the decoders
        self._encoders = {choice.name: load_encoder(choice, settings.precision, device) for choice in settings.encoders}
        self.decoders = DecoderPool(
            processes=max(1, threads // _CORES_A_DECODER[kind]), backend=settings.decoder, timeout=silence
        )
        """Its processes end with this one; close it to end them sooner."""
        self._batch_pixels = _BATCH_PIXELS[kind]
        self._store, self._dataset = store, dataset
        self._source_ids, self._odd_paths = source_ids, odd_paths

    def run(self, job: Job, beat: Beat) -> PartDone:
        """Do the videos of the part for all stores that miss it, and commit it there."""

        def work(items: Sequence[str], sink: Sink) -> None:
            encoders = {name: self._encoders[name] for name in sink.stores or self._encoders}
            videos = [self._video(item, encoders) for item in items]
            _Pass(videos, encoders, self._batch_pixels, sink, beat, sink.watch).run(self.decoders)

        return do_part(self._store, job, beat, work)

    def _video(self, item: str, encoders: Mapping[str, ClipEncoder]) -> _Video:
        path = self._odd_paths.get(item, self._dataset / item)
        return _Video(item, path, self._source_ids.get(item), encoders)


class _Video:
    """A video while its frames, clips and features come in."""

    def __init__(self, item: str, path: Path, source_id: str | None, encoders: Mapping[str, ClipEncoder]) -> None:
        self.item, self.path, self.source_id = item, path, source_id
        self.info: VideoInfo | None = None
        self.summary: DecodeSummary | None = None
        self.waiting = 0
        """Clips without a feature yet."""
        self.cutters = {name: Cutter(encoder.spec) for name, encoder in encoders.items()}
        self.times: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
        self.features: dict[str, list[NDArray[np.float32]]] = {name: [] for name in encoders}

    @property
    def is_complete(self) -> bool:
        return self.summary is not None and not self.waiting

    def row(self, name: str) -> Row | ItemError:
        """The columns of a video store but for the id, or why there is nothing to store."""
        info, summary = self.info, self.summary
        assert info is not None
        assert summary is not None
        if not self.times[name]:
            return ItemError(f"{self.path}: too short for a clip of {name}: {summary.end:g} s")
        return {
            "path": self.item,
            "source_id": self.source_id,
            "duration": info.duration,
            "fps": info.fps,
            "times": np.array(self.times[name]),
            "features": np.stack(self.features[name]),
            "status": summary.status,
            "frames": summary.frames,
            "errors": summary.errors + summary.corrupt,
        }


class _Pass:
    """One pass over the videos of a part."""

    def __init__(
        self,
        videos: Sequence[_Video],
        encoders: Mapping[str, ClipEncoder],
        batch_pixels: int,
        sink: Sink,
        beat: Beat,
        watch: Stopwatch,
    ) -> None:
        self._open = {video.item: (place, video) for place, video in enumerate(videos)}
        """Those without a row or a failure yet."""
        self._encoders = encoders
        self._batchers: dict[str, Batcher[_Video]] = {name: Batcher(batch_pixels) for name in encoders}
        self._users: dict[FrameStream, list[str]] = {}
        for name, encoder in encoders.items():
            self._users.setdefault(encoder.spec.frame_stream(), []).append(name)
        self._names_by_stream = list(self._users.values())
        self._sink, self._beat, self._watch = sink, beat, watch
        self._running: tuple[str, Batch[_Video], Tensor] | None = None

    def run(self, decoders: DecoderPool) -> None:
        """Decode, encode, and give every video to the sink."""
        paths = [(video.item, video.path) for _, video in self._open.values()]
        with closing(decoders.decode(paths, list(self._users))) as events:
            while True:
                with self._watch.time("wait"):
                    event = next(events, None)
                if event is None:
                    break
                self._hear(*self._open[event[0]], event[1])
        for name, batcher in self._batchers.items():
            for batch in batcher.flush():
                self._encode(name, batch)
        self._collect()

    def _hear(self, place: int, video: _Video, word: Word) -> None:
        match word:
            case VideoInfo():
                video.info = word
            case Frame():
                for name in self._names_by_stream[word.stream]:
                    self._take(place, video, name, video.cutters[name].add(word))
            case DecodeSummary():
                for name, cutter in video.cutters.items():
                    self._take(place, video, name, cutter.end())
                video.summary = word
                self._end(place, failed=False)
                self._finish_complete([video])
            case ItemError():
                self._collect()
                del self._open[video.item]
                self._end(place, failed=True)
                self._sink.fail(video.item, word)

    def _take(self, place: int, video: _Video, name: str, clip: Clip | None) -> None:
        if clip is None:
            return
        video.waiting += 1
        video.times[name].append((clip.start, clip.end))
        for batch in self._batchers[name].add(place, video, clip.frames_THW3):
            self._encode(name, batch)

    def _end(self, place: int, *, failed: bool) -> None:
        for name, batcher in self._batchers.items():
            for batch in batcher.end(place, failed=failed):
                self._encode(name, batch)

    def _encode(self, name: str, batch: Batch[_Video]) -> None:
        """Start a batch. Its features are collected before the next one starts, so that on a device of its own the
        network runs while clips are cut here."""
        self._collect()
        for item in {video.item for video in batch.owners}:
            self._beat.begin(item)
        with self._watch.time("network"):
            self._running = name, batch, self._encoders[name].encode(batch.clips_NTHW3)

    def _collect(self) -> None:
        if self._running is None:
            return
        (name, batch, features), self._running = self._running, None
        with self._watch.time("network"):
            features_ND = features.float().cpu().numpy()
        for item in {video.item for video in batch.owners}:
            self._beat.set_aside(item)
        for video, feature_D in zip(batch.owners, features_ND, strict=True):
            video.features[name].append(feature_D)
            video.waiting -= 1
        self._finish_complete(batch.owners)

    def _finish_complete(self, videos: Sequence[_Video]) -> None:
        for video in videos:
            if video.is_complete and video.item in self._open:
                del self._open[video.item]
                self._sink.add(video.item, {name: video.row(name) for name in self._encoders})
