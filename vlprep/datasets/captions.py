"""The caption files that datasets come with, each as rows of (names of an image, text).

| format | where it comes from |
| --- | --- |
| COCO | `annotations/captions_*.json`: `images` and `annotations` with `image_id`, `caption` |
| Karpathy | `dataset_coco.json`, `dataset_flickr30k.json`: `images` with `sentences`, of all splits |
| Flickr30k tokens | `results_20130124.token`: `name.jpg#0<tab>caption` |
| Conceptual Captions | `Train_GCC-training.tsv`: `caption<tab>url`, no header |
| SBU | `sbu-captions-all.json`: lists `image_urls` and `captions`; or `…_urls.txt` beside `…_captions.txt` |
| LXMERT | `mscoco_train.json`: `img_id`, `sentf` and `labelf`, texts and their answers by where they come from |
| records | CSV or TSV with a header, JSON lines, a JSON list: a column that names the image and one with the text |

A text may be a question with answers: in LXMERT's files with scores (`{"net": 1, "netting": 0.3}`), which a record has
in `label`; a record's `answer` is its only one.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from vlprep.datasets.items import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vlprep.datasets.records import Head, fault, read_json, read_records, read_text_lines, tab_rows, text_of

IMAGE_COLUMNS = (
    *("image", "image_path", "filepath", "file_path", "path", "file_name", "filename", "image_name", "img_path", "img"),
    *("image_id", "img_id", "video", "video_path", "video_id"),
)
ROW_COLUMNS = ("id", "key", "name")
"""Names of a row: taken for the image's only where nothing better names the image."""
URL_COLUMNS = ("url", "image_url")
TEXT_COLUMNS = (
    *("caption", "captions", "text", "sentence", "sentences", "comment", "description", "question", "sent"),
)


class CaptionRow(NamedTuple):
    keys: tuple[str, ...]
    """What the file calls the image, the most telling first: a path, a file name, an id."""
    text: str
    guessed: bool = False
    """The file has only a URL, and `keys` are what a downloader may have called the picture."""
    answers: Mapping[str, float] = {}
    """Where the text is a question: how right each answer is."""


@dataclass(frozen=True, slots=True)
class CaptionFormat:
    name: str
    fits: Callable[[Head], bool]
    read: Callable[[Path], Iterator[CaptionRow]]
    """Raises SettingsError naming the line where the file is not what its beginning promised."""


def record_keys(values: dict[str, Any]) -> tuple[str, ...]:
    """The names of the image in a record, by its columns; empty where it has none but a URL."""
    names = tuple(name for name in _named(values, IMAGE_COLUMNS) if "://" not in name)
    return names if names or _urls(values) else tuple(_named(values, ROW_COLUMNS))


def _urls(values: dict[str, Any]) -> list[str]:
    return [name for name in _named(values, (*IMAGE_COLUMNS, *URL_COLUMNS)) if "://" in name]


def _named(values: dict[str, Any], columns: Iterable[str]) -> list[str]:
    given = (values.get(column) for column in columns)
    return [name for value in given if isinstance(value, (str, int)) and (name := str(value).strip())]


def url_keys(url: str, row: int) -> tuple[str, ...]:
    """What downloaders call the picture of a URL in row `row` (from 0) of a list.

    Its CRC-32 (ViLBERT's Conceptual Captions), row and CRC-32 (igorbrigadir/DownloadConceptualCaptions), the row as
    nine digits (img2dataset, 10 000 to a shard), or its own last part (SBU, most others).
    """
    checksum = zlib.crc32(url.encode(errors="replace"))
    try:
        own_name = PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:  # no URL, as `http://[x]/1.jpg`: of millions, a few are broken
        own_name = ""
    return (str(checksum), f"{row}_{checksum}", f"{row:09d}", *([own_name] if own_name else []))


def _texts(value: Any) -> list[str]:
    """One caption, a list of them, or Karpathy's sentences."""
    values = value if isinstance(value, list) else [value]
    return [text_of(entry.get("raw") if isinstance(entry, dict) else entry) for entry in values]


def _answers(value: Any) -> dict[str, float]:
    """Of a record's `label` or `answer`; empty where that is no answer (a class, for instance)."""
    if isinstance(value, str) and (answer := text_of(value)):
        return {answer: 1.0}
    scores = value if isinstance(value, dict) else {}
    known = {name: score for name, score in scores.items() if isinstance(score, (int, float))}
    return {text_of(name): float(score) for name, score in known.items() if abs(score) <= sys.float_info.max}


def _members(path: Path, *names: str) -> list[list[Any]]:
    """Lists of a JSON object by their names."""
    data = read_json(path)
    members = data if isinstance(data, dict) else {}
    for name in names:
        if not isinstance(members.get(name), list):
            raise fault(path, name, "missing, or not a list")
    return [members[name] for name in names]


def _read_coco(path: Path) -> Iterator[CaptionRow]:
    images, annotations = _members(path, "images", "annotations")
    names: dict[Any, str] = {}
    for number, image in enumerate(images):
        try:
            names[image["id"]] = str(image["file_name"])
        except (KeyError, TypeError) as error:
            raise fault(path, f"image {number}", f"not as COCO writes it ({error!r})") from error
    for number, annotation in enumerate(annotations):
        try:
            image_id, text = annotation["image_id"], text_of(annotation["caption"])
        except (KeyError, TypeError) as error:
            raise fault(path, f"annotation {number}", f"not a caption ({error!r})") from error
        yield CaptionRow((names[image_id], str(image_id)) if image_id in names else (str(image_id),), text)


def _read_karpathy(path: Path) -> Iterator[CaptionRow]:
    (images,) = _members(path, "images")
    for number, image in enumerate(images):
        try:
            name = "/".join(part for part in (image.get("filepath"), image["filename"]) if part)
            texts = _texts(image["sentences"])
        except (KeyError, TypeError, AttributeError) as error:
            raise fault(path, f"image {number}", f"not as in Karpathy's files ({error!r})") from error
        keys = (name, str(image["cocoid"])) if "cocoid" in image else (name,)
        yield from (CaptionRow(keys, text) for text in texts)


def _read_tokens(path: Path) -> Iterator[CaptionRow]:
    for number, line in read_text_lines(path):
        name, tab, text = line.partition("\t")
        if not tab:
            raise fault(path, f"line {number}", "no tab between the image and its caption")
        yield CaptionRow((re.sub(r"#\d+$", "", name.strip()),), text_of(text))


def _read_conceptual(path: Path) -> Iterator[CaptionRow]:
    for row, (number, fields) in enumerate(tab_rows(path)):
        if len(fields) < 2:
            raise fault(path, f"line {number}", "not caption<tab>url")
        yield CaptionRow(url_keys(fields[1].strip(), row), text_of(fields[0]), guessed=True)


def _read_sbu_json(path: Path) -> Iterator[CaptionRow]:
    urls, texts = _members(path, "image_urls", "captions")
    yield from _paired(path, urls, texts)


def _read_sbu_text(path: Path) -> Iterator[CaptionRow]:
    urls = [line for _, line in read_text_lines(_urls_beside(path))]
    yield from _paired(path, urls, [line for _, line in read_text_lines(path)])


def _urls_beside(path: Path) -> Path:
    return path.with_name(path.name.replace("_captions.", "_urls."))


def _paired(path: Path, urls: list[str], texts: list[str]) -> Iterator[CaptionRow]:
    if len(urls) != len(texts):
        raise fault(path, "lists of different length", f"{len(urls)} URLs and {len(texts)} captions")
    for row, (url, text) in enumerate(zip(urls, texts, strict=True)):
        yield CaptionRow(url_keys(str(url).strip(), row), text_of(text), guessed=True)


def _read_lxmert(path: Path) -> Iterator[CaptionRow]:
    for where, values in read_records(path):
        try:
            key, sources, labels = str(values["img_id"]), values["sentf"].items(), values.get("labelf", {})
            for source, texts in sources:
                answers = labels.get(source) or [{}] * len(texts)
                for text, answer in zip(texts, answers, strict=True):
                    yield CaptionRow((key,), text_of(text), answers=_answers(answer))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise fault(path, where, f"not as in LXMERT's files ({error!r})") from error


def _read_records(path: Path) -> Iterator[CaptionRow]:
    for row, (where, values) in enumerate(read_records(path)):
        keys = record_keys(values)
        guessed = not keys
        keys = keys or tuple(key for url in _urls(values) for key in url_keys(url, row))
        if not keys:
            raise fault(path, where, f"nothing names the image; expected one of {', '.join(IMAGE_COLUMNS)}")
        texts = next((_texts(values[name]) for name in TEXT_COLUMNS if name in values), None)
        if texts is None:
            raise fault(path, where, f"no caption; expected one of {', '.join(TEXT_COLUMNS)}")
        label = values.get("label")
        answers = _answers(label if isinstance(label, dict) else values.get("answer"))
        yield from (CaptionRow(keys, text, guessed, answers) for text in texts)


def _has(*patterns: str) -> Callable[[Head], bool]:
    return lambda head: head.suffix == ".json" and all(re.search(pattern, head.text) for pattern in patterns)


def _fits_coco(head: Head) -> bool:
    # The official files keep captions and boxes apart by name; their beginnings are alike.
    if head.path.name.startswith(("instances_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")):
        return False
    return _has(r"^\s*\{", r'"(images|annotations)"\s*:\s*\[', r'"(file_name|image_id)"\s*:')(head)


def _fits_tokens(head: Head) -> bool:
    name = re.sub(r"#\d+$", "", head.text.lstrip().partition("\t")[0].strip())
    is_media = PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return head.suffix in (".token", ".tsv", ".txt") and is_media and "\n" not in name


def _fits_conceptual(head: Head) -> bool:
    return head.suffix == ".tsv" and len(head.first_row) == 2 and head.first_row[1].startswith(("http://", "https://"))


def _fits_sbu_text(head: Head) -> bool:
    return head.suffix == ".txt" and "_captions." in head.path.name and _urls_beside(head.path).is_file()


def _fits_lxmert(head: Head) -> bool:
    return head.suffix == ".json" and head.columns >= {"img_id", "sentf"}


def _fits_records(head: Head) -> bool:
    has_image = head.columns & {*IMAGE_COLUMNS, *URL_COLUMNS, *ROW_COLUMNS}
    return head.suffix in (".csv", ".tsv", ".jsonl", ".json") and bool(has_image and head.columns & {*TEXT_COLUMNS})


CAPTION_FORMATS = (
    CaptionFormat("Karpathy", _has(r"^\s*\{", r'"images"\s*:\s*\[', r'"sentences"\s*:\s*\['), _read_karpathy),
    CaptionFormat("COCO captions", _fits_coco, _read_coco),
    CaptionFormat("SBU", _has(r"^\s*\{", r'"image_urls"\s*:\s*\['), _read_sbu_json),
    CaptionFormat("SBU text", _fits_sbu_text, _read_sbu_text),
    CaptionFormat("Flickr30k tokens", _fits_tokens, _read_tokens),
    CaptionFormat("Conceptual Captions", _fits_conceptual, _read_conceptual),
    CaptionFormat("LXMERT", _fits_lxmert, _read_lxmert),
    CaptionFormat("caption records", _fits_records, _read_records),
)
