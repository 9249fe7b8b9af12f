from __future__ import annotations

import pytest
import timm
import torch

from classspace_widgets import ClassSpace
from core.families import SMALL, build, perturbed, pixels


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def space():
    """A plain ViT in float64."""
    return ClassSpace(build("ViT").double())


@pytest.fixture(scope="session")
def trace(space):
    return space.trace(pixels(space), attention=True, heads=True)


@pytest.fixture(scope="session")
def many():
    """More classes than are looked through directly, and not a multiple of anything."""
    return ClassSpace(perturbed(timm.create_model("vit_base_patch16_224", **{**SMALL, "num_classes": 1003})).double())
