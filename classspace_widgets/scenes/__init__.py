"""The bundled world: drawn scenes with exact masks, and small vision transformers that learned it.

Drawing needs numpy and Pillow alone; torch and timm are imported when a model is first asked for.
"""

from __future__ import annotations

from classspace_widgets.scenes.contexts import CONTEXTS
from classspace_widgets.scenes.dataset import ScenesDataset
from classspace_widgets.scenes.gallery import gallery
from classspace_widgets.scenes.generator import Layout, Placed, Scene, make_scene
from classspace_widgets.scenes.model import load_bundled, read_card, variants
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
    "load_bundled",
    "make_scene",
    "read_card",
    "variants",
]
