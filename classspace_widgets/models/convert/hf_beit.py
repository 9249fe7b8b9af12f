"""BEiT of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.models.convert import hugging_face as hf
from classspace_widgets.models.convert.naming import fused, renamed, sides
from classspace_widgets.models.convert.recipe import Recipe
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

TABLE = "relative_position_bias_table"
NAMES = (
    (rf"^(blocks\.\d+)\.(?:attn\.)?relative_position_bias\.{TABLE}$", rf"\1.attn.{TABLE}"),
    (rf"^(?:encoder\.relative_position_bias|shared_position_bias)\.{TABLE}$", f"rel_pos_bias.{TABLE}"),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"^pooler\.layernorm\.", "fc_norm."),
)


def recipe(model: nn.Module, name: str, size: tuple[int, int] | None = None) -> Recipe:
    """How a BEiT of transformers becomes timm's `Beit`.

    Parameters
    ----------
    model : nn.Module
        ``BeitModel`` or ``BeitForImageClassification``.
    name : str
        For messages.
    size : tuple of int, optional
        Height and width of pictures, which must be those that the model was built for.

    Returns
    -------
    Recipe
    """
    from timm.models.beit import Beit

    owner: Any = model
    config: Any = owner.config
    hf.refuse_other_head(model, name, "beit")
    backbone: Any = getattr(owner, "beit", owner)
    built, size = sides(config.image_size), hf.size_for(model, config, size)
    if size != built:
        raise UnsupportedModelError(
            f"{name} was built for pictures of {built[0]} x {built[1]} pixels, and its relative positions are those; "
            f"got image_size={size}"
        )
    weights = timm_weights(model.state_dict())
    options = hf.without_activation(hf.common_options(weights, config, name, size), config, name, "gelu") | {
        "global_pool": "avg" if config.use_mean_pooling else "token",
        "init_values": 1.0 if "blocks.0.gamma_1" in weights else None,
        "use_abs_pos_emb": "pos_embed" in weights,
        "use_rel_pos_bias": f"blocks.0.attn.{TABLE}" in weights,
        "use_shared_rel_pos_bias": f"rel_pos_bias.{TABLE}" in weights,
    }
    answer = hf.logits if hf.is_classifier(model) else hf.pooled
    return Recipe(
        Beit,
        options,
        weights,
        run=hf.called(model, config, size, answer),
        blocks=list(hf.layers_of(backbone)),
        config=hf.config_of(model),
    )


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a BEiT, of either generation of transformers, by timm's names."""
    unused = (*hf.UNUSED, r"relative_position_index$")
    return fused(renamed(weights, (*hf.NAMES, *NAMES), unused), bias="apart")
