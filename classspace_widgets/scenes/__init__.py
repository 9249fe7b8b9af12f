"""Drawn scenes of objects in contexts, with exact masks. Needs only numpy and Pillow."""

from __future__ import annotations

from classspace_widgets.scenes.dataset import ScenesDataset
from classspace_widgets.scenes.gallery import gallery
from classspace_widgets.scenes.generator import make_scene
from classspace_widgets.scenes.pairs import pair
from classspace_widgets.scenes.shapes import CLASSES
from classspace_widgets.scenes.sheet import contact_sheet as contact_sheet

__all__ = [
    "CLASSES",
    "ScenesDataset",
    "gallery",
    "make_scene",
    "pair",
]
