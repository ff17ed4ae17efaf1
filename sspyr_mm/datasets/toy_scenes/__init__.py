"""Toy scenes: a generated, labelled data set of multi-object pictures.

It stands in for photographs where none can be fetched: offline tests and the quickstart. Pictures are of a few kinds;
a kind has its own family of background textures and its own mix of objects. Colours and light are random and tell
nothing: what can be learned is structure. Only numpy and OpenCV are needed.
"""

from sspyr_mm.datasets.toy_scenes.dataset import GENERATOR_VERSION, generate
from sspyr_mm.datasets.toy_scenes.kinds import CLASSES, KINDS, Kind
from sspyr_mm.datasets.toy_scenes.label_checks import RECORD_NAME, parse_size
from sspyr_mm.datasets.toy_scenes.scene import VOID, Scene, SceneObject, draw_scene

__all__ = [
    "CLASSES",
    "GENERATOR_VERSION",
    "KINDS",
    "RECORD_NAME",
    "VOID",
    "Kind",
    "Scene",
    "SceneObject",
    "draw_scene",
    "generate",
    "parse_size",
]
