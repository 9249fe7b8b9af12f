"""Adapters: where a ViT keeps its residual stream, class embedding, final norm, attention and patch grid."""

from classspace_widgets.models.adapter import Adapter, adapt
from classspace_widgets.models.attention import AttentionParts, attention_parts
from classspace_widgets.models.bundled import load_bundled, read_card, variants
from classspace_widgets.models.refusals import UnsupportedModelError

__all__ = [
    "Adapter",
    "AttentionParts",
    "UnsupportedModelError",
    "adapt",
    "attention_parts",
    "load_bundled",
    "read_card",
    "variants",
]
