"""DINOv3 ViT of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.models.convert import hugging_face as hf
from classspace_widgets.models.convert.naming import fused, renamed
from classspace_widgets.models.convert.recipe import Recipe
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

NAMES = (
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"^(?:model\.)?norm\.", "norm."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
PLAIN = ((r"\.mlp\.up_proj\.", ".mlp.fc1."),)
GATED = ((r"\.mlp\.gate_proj\.", ".mlp.fc1_g."), (r"\.mlp\.up_proj\.", ".mlp.fc1_x."))


def recipe(model: nn.Module, name: str, size: tuple[int, int] | None = None) -> Recipe:
    """How a DINOv3 ViT of transformers becomes timm's `Eva`.

    Parameters
    ----------
    model : nn.Module
        ``DINOv3ViTModel``.
    name : str
        For messages.
    size : tuple of int, optional
        Height and width of pictures, which may be any multiples of the patches' size.

    Returns
    -------
    Recipe
    """
    from timm.models.eva import Eva

    owner: Any = model
    config: Any = owner.config
    hf.refuse_other_head(model, name, "model")
    size = hf.size_for(model, config, size)
    weights = timm_weights(model.state_dict())
    if getattr(config, "key_bias", False):
        raise UnsupportedModelError(f"{name} cannot be converted: its keys have a bias (key_bias), expected none")
    fixed = "silu" if config.use_gated_mlp else "gelu"
    options = hf.without_activation(hf.common_options(weights, config, name, size), config, name, fixed) | {
        "global_pool": "token",
        "init_values": 1.0,
        "num_reg_tokens": weights["reg_token"].shape[1] if "reg_token" in weights else 0,
        "use_abs_pos_emb": False,
        "use_rot_pos_emb": True,
        "rope_type": "dinov3",
        "rope_temperature": _theta(config),
        "rope_rotate_half": True,
        "use_fc_norm": False,
        "swiglu_mlp": config.use_gated_mlp,
        "swiglu_align_to": 1 if config.use_gated_mlp else 0,
    }
    return Recipe(
        Eva,
        options,
        weights,
        run=hf.called(model, config, size, hf.logits if hf.is_classifier(model) else hf.first_token),
        blocks=list(hf.layers_of(owner)),
        config=hf.config_of(model),
    )


def _theta(config: Any) -> float:
    """The base of the rotations' frequencies, which versions keep in different places."""
    found = getattr(config, "rope_theta", None)
    return float((config.rope_parameters or {})["rope_theta"] if found is None else found)


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a DINOv3 ViT by timm's names."""
    gated = any(".mlp.gate_proj." in key for key in weights)
    found = renamed(weights, (*hf.NAMES, *NAMES, *(GATED if gated else PLAIN)), hf.UNUSED)
    if "reg_token" in found and not found["reg_token"].shape[1]:
        del found["reg_token"]
    return fused(found, bias="apart")
