"""Adapters: where a ViT keeps its residual stream, class embedding, final norm, attention and patch grid."""

from classspace_widgets.models.adapter import Adapter as Adapter
from classspace_widgets.models.adapter import adapt as adapt
from classspace_widgets.models.attention import AttentionParts as AttentionParts
from classspace_widgets.models.attention import attention_parts as attention_parts
from classspace_widgets.models.bundled import load_bundled, variants
from classspace_widgets.models.bundled import read_card as read_card
from classspace_widgets.models.refusals import UnsupportedModelError

__all__ = [
    "UnsupportedModelError",
    "load_bundled",
    "variants",
]
