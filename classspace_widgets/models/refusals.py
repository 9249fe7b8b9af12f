"""Architectures whose class embedding space is not well defined, by name, with the reason and what to do."""

from __future__ import annotations


class UnsupportedModelError(ValueError):
    """The model has no well-defined class embedding space; the message says why and what to do."""


_HIERARCHY = "its width and its tokens change between stages, so there is no single residual stream to read"
_TAIL = "class tokens join only after the image blocks, so image tokens never share a residual stream with them"

REASONS = {
    "Cait": _TAIL,
    "Xcit": f"its attention mixes channels instead of tokens, and {_TAIL}",
    "VisionTransformerSAM": "a convolutional neck follows its blocks, and most of them attend inside windows",
    "PoolingVisionTransformer": _HIERARCHY,
    "TNT": "every patch has an inner transformer of its own that writes into the outer stream",
    "VOLO": f"outlook attention works on another grid, and {_TAIL}",
    "Levit": _HIERARCHY,
    "LevitDistilled": _HIERARCHY,
    "Hiera": _HIERARCHY,
    "HieraDet": _HIERARCHY,
    "SwinTransformer": _HIERARCHY,
    "SwinTransformerV2": _HIERARCHY,
    "SwinTransformerV2Cr": _HIERARCHY,
    "CrossVit": "two streams of different widths exchange class tokens",
    "ConVit": "the class token joins in the middle of the network, after the gated positional blocks",
    "NaFlexVit": "its sequences have variable length, with padding in the place of image tokens",
    "MultiScaleVit": _HIERARCHY,
    "CoaT": _HIERARCHY,
    "Twins": _HIERARCHY,
    "Nest": _HIERARCHY,
    "DaVit": _HIERARCHY,
    "GlobalContextVit": _HIERARCHY,
    "MaxxVit": _HIERARCHY,
    "PyramidVisionTransformerV2": _HIERARCHY,
    "Visformer": _HIERARCHY,
    "TinyVit": _HIERARCHY,
    "MlpMixer": "it has no attention and no tokens that attend",
}
"""Reason by class name."""

REMEDY = "use a plain ViT, DeiT, DINOv2, CLIP, BEiT or EVA model (docs/supported_models.md lists what works)"
EMBEDDING_REMEDY = "pass class_embedding=[C, D] to read its tokens through an embedding of your own"


def refuse_by_name(name: str) -> None:
    """Raise `UnsupportedModelError` if an architecture is known not to have a class embedding space."""
    if name in REASONS:
        raise UnsupportedModelError(f"{name} is not supported: {REASONS[name]}; {REMEDY}")
