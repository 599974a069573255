"""The kinds of stores and their columns.

Shape suffixes: R regions of an image, T clips of a video, N tokens of a text; D feature size, K classes, A attributes.

Every kind keeps one picture, video or text per row. What varies in number lies in list columns, all of one length in a
row; a vector per region or clip is `list<fixed_size_list<D>>`, so that a row's vectors are one block of bytes in the
file, of which a reader hands out an (R, D) view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa

from vlprep.errors import SettingsError

SCHEMA_VERSION = 1
"""Raised when a column changes its name, type or meaning."""

StoreType = Literal["float16", "float32"]
SoftLabels = Literal["full", "none"] | int
"""All classes' probabilities, none of them, or the k most probable classes."""

_FLOATS: Mapping[str, pa.DataType] = {"float16": pa.float16(), "float32": pa.float32()}


def regions_schema(
    feature_dim: int,
    num_classes: int,
    *,
    dtype: StoreType = "float16",
    soft_labels: SoftLabels = "full",
    num_attributes: int = 0,
    background: bool = True,
) -> pa.Schema:
    """An image with R regions, the most confident first.

    - `width`, `height` of the image as a person sees it; `source_id`, the dataset's own id, if it has one.
    - `boxes`, `proposals` (R, 4) float32 x1, y1, x2, y2 in its pixels; `features` (R, D) were pooled from `proposals`.
    - `object_ids` (R,) the most probable foreground class, `max_conf` (R,) the selection rule's confidence.
    - `background_prob` (R,), unless imported features come without it.
    - `class_probs` (R, K) over foreground classes if `soft_labels` is `full`; if it is a number k, `class_ids` and
      `class_probs` (R, k), the most probable first, and `remainder_prob` (R,) of the others.
    - `attribute_probs` (R, A) if `num_attributes` is not 0.
    """
    if not 0 < num_classes <= 2**16:
        raise SettingsError(f"a regions store takes 1 to 65536 classes, not {num_classes}")
    real = _FLOATS[dtype]
    fields = [
        *_item_fields(),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        _vectors("boxes", pa.float32(), 4),
        _vectors("proposals", pa.float32(), 4),
        _vectors("features", real, feature_dim),
        _values("object_ids", pa.uint16()),
        _values("max_conf", real),
    ]
    if background:
        fields.append(_values("background_prob", real))
    if soft_labels == "full":
        fields.append(_vectors("class_probs", real, num_classes))
    elif soft_labels != "none":
        if not 0 < soft_labels <= num_classes:
            raise SettingsError(f"soft labels: take full, none or 1 to {num_classes} classes, not {soft_labels}")
        fields += [
            _vectors("class_ids", pa.uint16(), soft_labels),
            _vectors("class_probs", real, soft_labels),
            _values("remainder_prob", real),
        ]
    if num_attributes:
        fields.append(_vectors("attribute_probs", real, num_attributes))
    return _schema("regions", fields)


def video_schema(feature_dim: int, *, dtype: StoreType = "float16") -> pa.Schema:
    """A video with T clips, by one encoder.

    - `duration` in seconds and `fps` as the container says, null where it does not.
    - `times` (T, 2) float64: start and end of each clip in seconds (float32 keeps milliseconds for four hours only).
    - `features` (T, D).
    - `status`: `ok`, or `partial` where some of the video could not be decoded; `frames` decoded and `errors` met.
    """
    return _schema(
        "video",
        [
            *_item_fields(),
            pa.field("duration", pa.float64()),
            pa.field("fps", pa.float64()),
            _vectors("times", pa.float64(), 2),
            _vectors("features", _FLOATS[dtype], feature_dim),
            pa.field("status", pa.string(), nullable=False),
            pa.field("frames", pa.int64(), nullable=False),
            pa.field("errors", pa.int64(), nullable=False),
        ],
    )


def tokens_schema() -> pa.Schema:
    """A video with T clips: `times` (T, 2) float64 seconds, `tokens` (T,) uint16."""
    return _schema("tokens", [*_item_fields(), _vectors("times", pa.float64(), 2), _values("tokens", pa.uint16())])


def text_schema(*, answers: bool = False) -> pa.Schema:
    """A caption, a question, or a segment of narration.

    `id` is the text's own, `item_id` the id of the image or video that it is about (as are `path` and `source_id`).
    `start`, `end` in seconds are null for captions. `token_ids` (N,) int32. With `answers`: how right
    each answer is as JSON, `{"net": 1.0}`, null where the text is no question.
    """
    fields = [
        *_item_fields(),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("text", pa.string(), nullable=False),
        _values("token_ids", pa.int32()),
    ]
    if answers:
        fields.append(pa.field("answers", pa.string()))
    return _schema("text", fields)


def embeddings_schema(size: int) -> pa.Schema:
    """A video with N narrated segments in a model's joint space of D numbers.

    - `times` (N, 2) float64: start and end of each segment in seconds.
    - `clips` (N, D) and `texts` (N, D) float32: what is seen and what is said then; their dot product is the score.
    - `text_rows` (N,) int64: rows of the text store with what is said.
    """
    return _schema(
        "embeddings",
        [
            *_item_fields(),
            _vectors("times", pa.float64(), 2),
            _vectors("clips", pa.float32(), size),
            _vectors("texts", pa.float32(), size),
            _values("text_rows", pa.int64()),
        ],
    )


def column_types(schema: pa.Schema) -> dict[str, str]:
    """Column names and types as text, as `store.json` keeps them."""
    return {field.name: str(field.type) + ("" if field.nullable else " not null") for field in schema}


def schema_kind(schema: pa.Schema) -> str:
    """The kind written into the schema's metadata (and so into every part)."""
    kind: bytes = schema.metadata[b"vlprep.kind"]
    return kind.decode()


def _schema(kind: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"vlprep.kind": kind, "vlprep.schema_version": str(SCHEMA_VERSION)})


def _item_fields() -> list[pa.Field]:
    return [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("source_id", pa.string()),
    ]


def _values(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, pa.list_(kind), nullable=False)


def _vectors(name: str, kind: pa.DataType, size: int) -> pa.Field:
    return pa.field(name, pa.list_(pa.list_(kind, size)), nullable=False)
