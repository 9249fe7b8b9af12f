"""Drawn scenes of objects in contexts, with exact masks. Needs only numpy and Pillow."""

from __future__ import annotations

from classspace_widgets.scenes.contexts import CONTEXTS
from classspace_widgets.scenes.dataset import ScenesDataset
from classspace_widgets.scenes.gallery import gallery
from classspace_widgets.scenes.generator import Layout, Placed, Scene, make_scene
from classspace_widgets.scenes.shapes import CLASSES, HOMES
from classspace_widgets.scenes.sheet import contact_sheet

__all__ = [
    "CLASSES",
    "CONTEXTS",
    "HOMES",
    "Layout",
    "Placed",
    "Scene",
    "ScenesDataset",
    "contact_sheet",
    "gallery",
    "make_scene",
]
