"""The vision towers of CLIP and SigLIP in transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.models.convert import hugging_face as hf
from classspace_widgets.models.convert.naming import fused, renamed
from classspace_widgets.models.convert.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

NAMES = (
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_", "attn_pool.in_proj."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
TEXT = (r"^text_model\.", r"^text_projection\.", r"^logit_(?:scale|bias)$")


def recipe(model: nn.Module, name: str, size: tuple[int, int] | None = None) -> Recipe:
    """How the vision tower of a CLIP or SigLIP becomes timm's `VisionTransformer`.

    Parameters
    ----------
    model : nn.Module
        ``CLIPModel``, ``CLIPVisionModel``, ``CLIPVisionModelWithProjection``, ``SiglipModel``, ``SiglipVisionModel``, or one
        of them for image classification.
    name : str
        For messages.
    size : tuple of int, optional
        Height and width of pictures.

    Returns
    -------
    Recipe
    """
    from timm.models.vision_transformer import VisionTransformer

    hf.refuse_other_head(model, name, "vision_model")
    owner: Any = model
    tower: Any = getattr(owner, "vision_model", owner)
    config: Any = tower.config
    size = hf.size_for(model, config, size)
    weights = timm_weights(model.state_dict())
    tokens = "cls_token" in weights
    if tokens:
        weights["cls_token"] = weights["cls_token"].reshape(1, 1, -1)
    weights["pos_embed"] = hf.positions(tower.embeddings, weights["pos_embed"], config, size)
    options = hf.common_options(weights, config, name, size) | {
        "class_token": tokens,
        "pre_norm": "norm_pre.weight" in weights,
    }
    if hf.is_classifier(model):
        # Both classify the mean of the patches: CLIP's without a norm, SigLIP's behind it.
        options |= {"global_pool": "avg", "fc_norm": False, "final_norm": not tokens}
        weights = {key: value for key, value in weights.items() if not key.startswith("attn_pool.")}
        if tokens:
            weights = {key: value for key, value in weights.items() if not key.startswith("norm.")}
    elif not tokens:
        options["global_pool"] = "map"
    return Recipe(
        VisionTransformer,
        options,
        weights,
        run=_runs(model, tower, config, size),
        blocks=list(hf.layers_of(getattr(tower, "vision_model", tower))),
        config=hf.config_of(model),
        projection="head.weight" in weights and not hf.is_classifier(model),
    )


def _runs(model: nn.Module, tower: nn.Module, config: Any, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    if hf.is_classifier(model):
        return hf.called(model, config, size, hf.logits)
    features = hf.called(tower, config, size, hf.pooled)
    projection: Any = getattr(model, "visual_projection", None)
    return features if projection is None else lambda pixels: projection(features(pixels))


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a CLIP or SigLIP, its vision tower's part, by timm's names."""
    found = fused(renamed(weights, (*hf.NAMES, *NAMES), (*hf.UNUSED, *TEXT)))
    for kind in ("weight", "bias"):
        joined = found.pop(f"attn_pool.in_proj.{kind}", None)
        if joined is not None:
            width = len(joined) // 3
            found[f"attn_pool.q.{kind}"], found[f"attn_pool.kv.{kind}"] = joined[:width], joined[width:]
    if "head.weight" in found and "head.bias" not in found:
        # A projection to the space of the text, which has none.
        found["head.bias"] = found["head.weight"].new_zeros(len(found["head.weight"]))
    return found
