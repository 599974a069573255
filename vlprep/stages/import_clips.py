"""`import clip-features`: published features of a retrieval benchmark as stores, so that `evaluate` reads them like
features extracted here.

Nothing of the benchmark's videos is needed. Clips that no caption belongs to are left out and counted, as are captions
without a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprep.datasets.items import Item
from vlprep.datasets.narration import open_narration, usable
from vlprep.datasets.records import read_json, read_records
from vlprep.errors import SettingsError
from vlprep.interop.clip_features import Clip, read_clip_features
from vlprep.shards import StoreSettings, open_store
from vlprep.shards.schema import video_schema
from vlprep.stages.tokenize_text import Text, fill_text_store, open_encoder
from vlprep.weights import sha256_of

PART_SIZE = 1024
_TEXT_COLUMNS = ("sentence", "caption", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedClips:
    folder: Path
    stores: tuple[Path, ...]
    clips: int
    texts: int
    clips_without_text: int
    texts_without_clip: int


def import_clips(
    folder: Path,
    features: Path,
    *,
    tokenizer: str,
    captions: Path | None = None,
    only: Path | None = None,
    stores: Sequence[str] = (),
    text: str = "text",
    overwrite: bool = False,
) -> ImportedClips:
    """Make `<folder>/vlprep/<store>` for every encoder of the file, and `<folder>/vlprep/<text>` with its captions.

    `captions` is a table of `video_id` and `sentence` (MSR-VTT) or segments with times (YouCook2 as a table, UniVL's
    `youcookii_data.pickle`); none where the features' own file has them. `only` is a table whose `video_id` column says
    which videos are of the split. `stores` name the feature stores: `howto100m-2d`, `howto100m-3d`, or `s3d`.

    Raises `SettingsError` for a file of another form, or where nothing is left.
    """
    clips = read_clip_features(features)
    names = tuple(stores) or (("howto100m-2d", "howto100m-3d") if len(clips[0].features_TD) == 2 else ("s3d",))
    if len(names) != len(clips[0].features_TD):
        raise SettingsError(
            f"{features} has features of {len(clips[0].features_TD)} encoders, --store names {len(names)}"
        )
    if only is not None:
        wanted = {str(record.values.get("video_id", "")).strip() for record in read_records(only)}
        clips = [clip for clip in clips if clip.video in wanted]
    texts, homeless = _texts(clips, captions)
    told = {each.item.id for each in texts}
    kept = [clip for clip in clips if clip.id in told]
    if not kept:
        raise SettingsError(f"{features}: none of its clips has a caption; are --captions and --only of the same data?")
    made = [
        _write(folder / "vlprep" / name, kept, place, features, overwrite=overwrite) for place, name in enumerate(names)
    ]
    text_folder = folder / "vlprep" / text
    fill_text_store(text_folder, texts, open_encoder(tokenizer, texts), overwrite=overwrite)
    return ImportedClips(
        folder=folder,
        stores=(*made, text_folder),
        clips=len(kept),
        texts=len(texts),
        clips_without_text=len(clips) - len(kept),
        texts_without_clip=homeless,
    )


def _texts(clips: Sequence[Clip], captions: Path | None) -> tuple[list[Text], int]:
    """The captions of these clips, and how many belong to none of them."""
    if captions is None:
        found = [(clip, clip.caption, None, None) for clip in clips if clip.caption is not None]
        if not found:
            raise SettingsError("the features' file has no captions: name a file that has, by --captions")
        return [_text(*one, 0) for one in found], 0
    by_video = {clip.video: clip for clip in clips}
    listed: list[tuple[str, str, float | None, float | None]]
    narration = open_narration(captions)
    if narration is not None:
        listed = [
            (video, segment.text, segment.start, segment.end)
            for video in narration.ids
            for segment in usable(narration.segments(video))
        ]
    else:
        listed = [(*_caption(captions, where, values), None, None) for where, values in _records(captions)]
    numbers: dict[str, int] = {}
    texts = []
    for video, said, start, end in listed:
        if video in by_video:
            texts.append(_text(by_video[video], said, start, end, numbers.setdefault(video, 0)))
            numbers[video] += 1
    return texts, len(listed) - len(texts)


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Rows of a table; of `MSRVTT_data.json` its `sentences`."""
    content = read_json(path) if path.suffix.lower() == ".json" else None
    if isinstance(content, dict) and isinstance(content.get("sentences"), list):
        yield from ((f"sentence {number}", entry) for number, entry in enumerate(content["sentences"]))
    else:
        yield from ((record.where, record.values) for record in read_records(path))


def _caption(path: Path, where: str, values: Mapping[str, object]) -> tuple[str, str]:
    said = next((values[name] for name in _TEXT_COLUMNS if values.get(name)), None)
    video = values.get("video_id")
    if said is None or not video:
        raise SettingsError(f"{path}: {where}: expected columns video_id and sentence (or caption, text)")
    return str(video).strip(), str(said)


def _text(clip: Clip, said: str, start: float | None, end: float | None, number: int) -> Text:
    item = Item(clip.id, Path(clip.id), clip.video)
    return Text(id=f"{clip.id}#{number}", item=item, text=said, start=start, end=end)


def _write(folder: Path, clips: Sequence[Clip], place: int, source: Path, *, overwrite: bool) -> Path:
    dim = clips[0].features_TD[place].shape[1]
    settings = StoreSettings(
        kind="video", settings={"imported": source.name, "sha256": sha256_of(source), "encoder": place}, weights=None
    )
    store = open_store(folder, video_schema(dim, dtype="float32"), settings, overwrite=overwrite)
    by_id = {clip.id: clip for clip in clips}
    store.plan(list(by_id), PART_SIZE)
    for part in store.pending():
        with store.write_part(part) as writer:
            for name in store.part_items(part):
                if name not in by_id:
                    writer.fail(name, SettingsError("this clip was planned, but is no longer among the captioned ones"))
                    continue
                rows_TD: NDArray[np.float32] = by_id[name].features_TD[place].astype(np.float32)
                seconds = np.arange(len(rows_TD), dtype=np.float64)
                writer.add(
                    name,
                    {
                        "path": name,
                        "source_id": by_id[name].video,
                        "times": np.stack([seconds, seconds + 1], 1),
                        "features": rows_TD,
                        "status": "ok",
                        "frames": len(rows_TD),
                        "errors": 0,
                    },
                )
    return store.folder
