"""A picture of what visual tokens look like, with what is said meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vlprep.cluster.vocabulary import Vocabulary, path_of
from vlprep.datasets import Dataset, Segment, open_dataset
from vlprep.errors import ItemError
from vlprep.report.clock import clock_text
from vlprep.report.leaves import LeafFrame, LeafRow, leaf_page
from vlprep.stages.leaf_frames import Leaf, NearClip, frames_of


def leaf_picture(dataset: Path, vocabulary: Vocabulary, leaves: Sequence[Leaf]) -> Image.Image:
    """Decode a frame of each clip and draw the page. Clips whose video can no longer be read are left out."""
    frames = frames_of(dataset, [clip for leaf in leaves for clip in leaf.nearest])
    said = Narrator(open_dataset(dataset))
    rows = []
    for leaf in leaves:
        shown = [
            LeafFrame(
                image_HW3=frames[clip],
                place=f"{Path(clip.video).stem}  {clock_text(clip.start)}",
                said=said.during(clip),
            )
            for clip in leaf.nearest
            if clip in frames
        ]
        notes = [f"{leaf.clips:,} clip" + "s" * (leaf.clips != 1)]
        rows.append(LeafRow(token=leaf.token, path=path_of(leaf.token, vocabulary), notes=notes, frames=shown))
    heading = f"{dataset.resolve().name} · {len(rows)} of {vocabulary.size:,} visual tokens"
    return leaf_page(heading, "Frames of the clips nearest to each token's centroid, the nearest first.", rows)


class Narrator:
    """What is said in a dataset's videos, when."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._videos = {video.id: video for video in dataset.videos}

    def segments(self, video: str) -> tuple[Segment, ...]:
        """By start time; none for a video that is gone or whose narration cannot be read."""
        item = self._videos.get(video)
        try:
            return self._dataset.narration_of(item) if item else ()
        except ItemError:
            return ()

    def during(self, clip: NearClip) -> str:
        """The segment that overlaps the clip most; empty if none does."""
        overlaps = [
            (min(segment.end, clip.end) - max(segment.start, clip.start), segment.text)
            for segment in self.segments(clip.video)
        ]
        longest, text = max(overlaps, default=(0.0, ""))
        return text if longest > 0 else ""
