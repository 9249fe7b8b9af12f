"""ViT and DeiT of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.models.convert import hugging_face as hf
from classspace_widgets.models.convert.naming import fused, renamed
from classspace_widgets.models.convert.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


def recipe(model: nn.Module, name: str, size: tuple[int, int] | None = None) -> Recipe:
    """How a ViT or DeiT of transformers becomes timm's `VisionTransformer`, or `VisionTransformerDistilled`.

    Parameters
    ----------
    model : nn.Module
        ``ViTModel``, ``DeiTModel``, or one of them for image classification, also with the teacher's classifier.
    name : str
        For messages.
    size : tuple of int, optional
        Height and width of pictures.

    Returns
    -------
    Recipe
    """
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    owner: Any = model
    prefix = owner.base_model_prefix
    hf.refuse_other_head(model, name, prefix)
    backbone: Any = getattr(owner, prefix, owner)
    size = hf.size_for(model, owner.config, size)
    weights = timm_weights(model.state_dict())
    weights["pos_embed"] = hf.positions(backbone.embeddings, weights["pos_embed"], owner.config, size)
    options = hf.common_options(weights, owner.config, name, size)
    distilled = "head_dist.weight" in weights
    if not distilled and "dist_token" in weights:
        # Nothing reads it at the end, as with a register.
        weights["reg_token"] = weights.pop("dist_token")
        options["reg_tokens"] = 1
    answer = hf.logits if hf.is_classifier(model) else hf.first_token
    return Recipe(
        VisionTransformerDistilled if distilled else VisionTransformer,
        options,
        weights,
        run=hf.called(model, owner.config, size, answer),
        blocks=list(hf.layers_of(backbone)),
        config=hf.config_of(model),
    )


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a ViT or DeiT, of either generation of transformers, by timm's names."""
    heads = ((r"^cls_classifier\.", "head."), (r"^distillation_classifier\.", "head_dist."))
    return fused(renamed(weights, (*hf.NAMES, *heads), hf.UNUSED))
