"""Models of ``torchvision.models.vision_transformer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from classspace_widgets.models.convert.naming import layer_norm, renamed, sizes
from classspace_widgets.models.convert.recipe import Recipe
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

NAMES = (
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)


def recipe(model: nn.Module, name: str, size: tuple[int, int] | None = None) -> Recipe:
    """How a ``vit_*`` of torchvision becomes timm's `VisionTransformer`.

    Parameters
    ----------
    model : nn.Module
    name : str
        For messages.
    size : tuple of int, optional
        Height and width of pictures; torchvision's models take those they were built for.

    Returns
    -------
    Recipe
    """
    from timm.models.vision_transformer import VisionTransformer

    owner: Any = model
    layers = list(owner.encoder.layers)
    if getattr(owner, "representation_size", None):
        raise UnsupportedModelError(
            f"{name} cannot be converted: a hidden layer (representation_size) stands between its final norm and its "
            "classifier, so class logits are no linear reading of a token; build it with representation_size=None"
        )
    if not isinstance(owner.conv_proj, nn.Conv2d):
        raise UnsupportedModelError(
            f"{name} cannot be converted: its patches are embedded by several convolutions (conv_stem_configs), expected one"
        )
    if size not in (None, (owner.image_size, owner.image_size)):
        raise ValueError(
            f"{name} takes only pictures of {owner.image_size} x {owner.image_size} pixels, got image_size={size}"
        )
    weights = timm_weights(model.state_dict())
    options = sizes(weights, name) | {
        "img_size": owner.image_size,
        "num_heads": layers[0].num_heads,
        "norm_layer": layer_norm(owner.encoder.ln.eps),
    }
    return Recipe(VisionTransformer, options, weights, run=model, blocks=layers)


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a ``vit_*`` by timm's names; no tensor is copied."""
    return renamed(weights, NAMES)
