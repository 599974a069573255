"""Small rendered scenes: coloured shapes whose boxes, classes and captions are known because we drew them.

They stand in for photographs where a test must know the right answer, where the `demo` detector is trained, and where a
newcomer wants to see the whole path run without a download. A scene is plain data; `render` and `captions` are pure
functions of it, so equal seeds give equal bytes (for one version of NumPy and Pillow).
"""

from vlprep.media.scenes.drawing import render
from vlprep.media.scenes.folder import write_coco_folder
from vlprep.media.scenes.layout import CLASS_NAMES, COLOURS, SHAPES, Scene, SceneObject, random_scene
from vlprep.media.scenes.wording import captions

__all__ = [
    "CLASS_NAMES",
    "COLOURS",
    "SHAPES",
    "Scene",
    "SceneObject",
    "captions",
    "random_scene",
    "render",
    "write_coco_folder",
]
