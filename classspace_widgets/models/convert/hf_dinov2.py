"""DINOv2 of transformers, with and without registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.models.convert import hugging_face as hf
from classspace_widgets.models.convert.naming import fused, ratio, renamed
from classspace_widgets.models.convert.pools import first_and_mean_vit
from classspace_widgets.models.convert.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

NAMES = (
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    # SwiGLU: one matrix for gate and value before version 5, two since.
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1_x."),
)


def recipe(model: nn.Module, name: str, size: tuple[int, int] | None = None) -> Recipe:
    """How a DINOv2 of transformers becomes timm's `VisionTransformer`.

    Parameters
    ----------
    model : nn.Module
        ``Dinov2Model``, ``Dinov2WithRegistersModel``, or one of them for image classification.
    name : str
        For messages.
    size : tuple of int, optional
        Height and width of pictures.

    Returns
    -------
    Recipe
    """
    from timm.layers.mlp import GluMlp, SwiGLU
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    owner: Any = model
    config: Any = owner.config
    prefix = owner.base_model_prefix
    hf.refuse_other_head(model, name, prefix)
    backbone: Any = getattr(owner, prefix, owner)
    size = hf.size_for(model, config, size)
    weights = timm_weights(model.state_dict())
    weights["pos_embed"] = hf.positions(backbone.embeddings, weights["pos_embed"], config, size)
    options = hf.common_options(weights, config, name, size) | {"init_values": 1.0}
    if "reg_token" in weights:
        # Registers join after the positions, of which [CLS] has the first.
        weights["cls_token"] = weights["cls_token"] + weights["pos_embed"][:, :1]
        weights["pos_embed"] = weights["pos_embed"][:, 1:]
        options |= {"reg_tokens": weights["reg_token"].shape[1], "no_embed_class": True}
    if "blocks.0.mlp.fc1_g.weight" in weights:
        options |= {"mlp_layer": SwiGLU, "act_layer": nn.SiLU}
    elif config.use_swiglu_ffn:
        inputs, width = weights["blocks.0.mlp.fc1.weight"].shape
        options |= {"mlp_layer": _packed(GluMlp), "act_layer": nn.SiLU, "mlp_ratio": ratio(inputs, width)}
    return Recipe(
        # Its classifier reads [CLS] and the mean of the patches side by side.
        first_and_mean_vit if hf.is_classifier(model) else VisionTransformer,
        options,
        weights,
        run=hf.called(model, config, size, hf.logits if hf.is_classifier(model) else hf.first_token),
        blocks=list(hf.layers_of(backbone)),
        config=hf.config_of(model),
    )


def _packed(kind: Any) -> Any:
    from functools import partial

    return partial(kind, gate_last=False)


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a DINOv2, of either generation of transformers, by timm's names."""
    return fused(renamed(weights, (*hf.NAMES, *NAMES), hf.UNUSED))
