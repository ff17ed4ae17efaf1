"""Toy scenes: a generated, labelled data set of multi-object images.

It replaces photographs where they cannot be downloaded: in offline tests and the quickstart. Each image shows one kind
of scene, with its own family of background textures and its own mix of objects. Colours and light are random and
independent of the labels: only structure can be learned.
"""

from sspyr_mm.datasets.toy_scenes.dataset import GENERATOR_VERSION, RECORD_NAME, generate
from sspyr_mm.datasets.toy_scenes.objects import CLASSES
from sspyr_mm.datasets.toy_scenes.scene import KINDS, VOID, Kind, Scene, SceneObject, draw_scene, parse_size

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
