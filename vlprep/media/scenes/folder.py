"""A folder of rendered scenes laid out as COCO's: images, captions, and instances to check recall against."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from vlprep.media.scenes.drawing import render
from vlprep.media.scenes.layout import CLASS_NAMES, Scene, random_scene
from vlprep.media.scenes.own_folder import write_own_files
from vlprep.media.scenes.wording import captions

_CAPTIONS_PER_IMAGE = 5
_JPEG_QUALITY = 92


def write_coco_folder(folder: Path, images: int, seed: int = 0) -> list[Scene]:
    """Write `images/NNNNNNNNNNNN.jpg`, `annotations/captions_demo.json` and `annotations/instances_demo.json`.

    Both JSON files are in COCO's format, boxes as x, y, width, height. Image ids count from 1; the scene of image n is
    `random_scene(seed * 1_000_000 + n)`, so folders of different seeds share no picture. The scenes are returned.

    Raises:
        SettingsError: The folder has files that an earlier such call did not write (`write_own_files`).
    """
    files: dict[str, bytes] = {}
    scenes = [random_scene(seed * 1_000_000 + number) for number in range(1, images + 1)]
    pictures: list[dict[str, Any]] = []
    sentences: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, start=1):
        name = f"{number:012}.jpg"
        files[f"images/{name}"] = _jpeg(scene)
        pictures.append({"id": number, "file_name": name, "width": scene.width, "height": scene.height})
        for text in captions(scene, _CAPTIONS_PER_IMAGE):
            sentences.append({"id": len(sentences) + 1, "image_id": number, "caption": text})
        for thing in scene.objects:
            x1, y1, x2, y2 = thing.box
            instances.append(
                {
                    "id": len(instances) + 1,
                    "image_id": number,
                    "category_id": CLASS_NAMES.index(thing.class_name) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": thing.area,
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": index, "name": name, "supercategory": name.split()[1]} for index, name in enumerate(CLASS_NAMES, start=1)
    ]
    common = {"info": {"description": "Scenes rendered by vlprep", "version": "1"}, "images": pictures}
    files["annotations/captions_demo.json"] = _json({**common, "annotations": sentences})
    files["annotations/instances_demo.json"] = _json({**common, "annotations": instances, "categories": categories})
    write_own_files(folder, files)
    return scenes


def _jpeg(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(render(scene)).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()
