"""open_clip's own `VisionTransformer`, by itself or in a model with text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from classspace_widgets.models.convert.naming import layer_norm, renamed, sides, sizes
from classspace_widgets.models.convert.recipe import Recipe
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

NAMES = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.", r".ls\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^proj$", "head.weight"),
)


def recipe(model: nn.Module, name: str, size: tuple[int, int] | None = None) -> Recipe:
    """How open_clip's `VisionTransformer` becomes timm's.

    Parameters
    ----------
    model : nn.Module
        The tower, or a ``CLIP`` or ``CustomTextCLIP`` that has it as ``visual``.
    name : str
        For messages.
    size : tuple of int, optional
        Height and width of pictures, which must be those that the tower was built for.

    Returns
    -------
    Recipe
    """
    from timm.models.vision_transformer import VisionTransformer

    tower: Any = getattr(model, "visual", model)
    _refuse(tower, name, size)
    weights = timm_weights(tower.state_dict())
    block = tower.transformer.resblocks[0]
    pre_norm = "norm_pre.weight" in weights
    if not pre_norm:
        weights["patch_embed.proj.bias"] = weights["cls_token"].new_zeros(weights["cls_token"].shape[-1])
    options = sizes(weights, name) | {
        "img_size": sides(tower.image_size),
        "num_heads": block.attn.num_heads,
        "norm_layer": layer_norm(tower.ln_post.eps),
        "act_layer": type(block.mlp.gelu),
        "init_values": 1.0 if "blocks.0.ls1.gamma" in weights else None,
        "pre_norm": pre_norm,
        "global_pool": "avg" if tower.pool_type == "avg" else "token",
        "fc_norm": bool(tower.final_ln_after_pool),
    }
    if options["fc_norm"]:
        weights = {f"fc_{key}" if key.startswith("norm.") else key: value for key, value in weights.items()}

    def run(pixels: Tensor) -> Tensor:
        found = tower(pixels)
        first: Tensor = found[0] if isinstance(found, tuple) else found
        return first

    return Recipe(
        VisionTransformer,
        options,
        weights,
        run=run,
        blocks=list(tower.transformer.resblocks),
        config=preprocessing(getattr(tower, "preprocess_cfg", None) or {}) | {"architecture": name},
        projection="head.weight" in weights,
    )


def _refuse(tower: Any, name: str, size: tuple[int, int] | None) -> None:
    kind = type(tower).__name__
    if hasattr(tower, "trunk"):
        raise UnsupportedModelError(
            f"{name} need not be converted: its picture tower is timm's own: pass model.visual.trunk, and what you read it for as "
            "class_embedding=[C, D]"
        )
    if not hasattr(tower, "transformer") or not hasattr(tower, "conv1"):
        raise UnsupportedModelError(
            f"{name} cannot be converted: its picture tower is a {kind}, expected open_clip's VisionTransformer"
        )
    if tower.attn_pool is not None or tower.pool_type == "none":
        raise UnsupportedModelError(f"{name} cannot be converted: it pools its tokens by queries of its own (CoCa)")
    blocks = {type(block).__name__ for block in tower.transformer.resblocks}
    if blocks != {"ResidualAttentionBlock"}:
        raise UnsupportedModelError(
            f"{name} cannot be converted: its blocks are of type {', '.join(sorted(blocks))}, expected ResidualAttentionBlock"
        )
    built = sides(tower.image_size)
    if size not in (None, built):
        raise ValueError(f"{name} takes only pictures of {built[0]} x {built[1]} pixels, got image_size={size}")


def preprocessing(found: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's ``preprocess_cfg`` by timm's names."""
    out: dict[str, Any] = {part: tuple(found[part]) for part in ("mean", "std") if part in found}
    if "size" in found:
        out["input_size"] = (3, *sides(found["size"]))
    modes = {"shortest": "center", "squash": "squash", "longest": "border"}
    if found.get("resize_mode") in modes:
        out |= {"crop_mode": modes[found["resize_mode"]], "crop_pct": 1.0}
    if found.get("interpolation") in ("bicubic", "bilinear"):
        out["interpolation"] = found["interpolation"]
    return out


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the tower by timm's names; no large tensor is copied."""
    out = renamed(weights, NAMES)
    out["cls_token"] = out["cls_token"].reshape(1, 1, -1)
    out["pos_embed"] = out["pos_embed"].unsqueeze(0)
    if "head.weight" in out:
        out["head.weight"] = out["head.weight"].T
        out["head.bias"] = out["head.weight"].new_zeros(len(out["head.weight"]))
    return out
