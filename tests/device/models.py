"""The models that device tests run: small ones of every kind of head, attention and origin, made on the CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from core.families import build

from classspace_widgets.models.convert import convert

CLASSES = 12


def _converted(name: str, width: int = 0) -> tuple[torch.nn.Module, dict]:
    """A model of another library, converted; a backbone is read through an embedding of this width."""
    pytest.importorskip("torchvision" if name == "torchvision" else "transformers")
    from convert.originals import BACKBONES, CLASSIFIERS

    model = convert({**CLASSIFIERS, **BACKBONES}[name]())
    if not width:
        return model, {}
    embedding = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(3))
    return model, {"class_embedding": embedding, **({"class_norm": "pool"} if "SigLIP" in name else {})}


FAMILIES = {
    name: partial(lambda family: (build(family), {}), name)
    for name in (
        "ViT",
        "SigLIP, GAP",
        "DINOv2 with registers",
        "BEiT",
        "RoPE",
        "DeiT, distilled",
        "SigLIP, attention pooling",
    )
} | {
    "converted: ViT": partial(_converted, "ViT"),
    "converted: SigLIP": partial(_converted, "SigLIP, classifier"),
    "converted: DINOv3, own embedding": partial(_converted, "DINOv3", 32),
    "converted: SigLIP tower, own embedding": partial(_converted, "SigLIP, vision tower", 32),
    "torchvision": partial(_converted, "torchvision"),
}
"""By name: makes a model and the options of its `ClassSpace`."""
