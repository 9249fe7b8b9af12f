"""The weights that DINO, MAE and DeiT published, as their own training code wrote them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from classspace_widgets.models.checkpoint import read_checkpoint
from classspace_widgets.models.convert.assemble import assembled
from classspace_widgets.models.convert.naming import layer_norm, renamed, sizes
from classspace_widgets.models.convert.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from torch import Tensor, nn

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Attention heads by width in all that was published: weights do not tell them."""

NAMES = ((r"\.gamma_([12])$", r".ls\1.gamma"),)
UNUSED = (r"^mask_token$", r"^decoder_", r"^head\.(?:mlp|last_layer)\.")
"""MAE's decoder and DINO's projection head have no part in features."""


def load_original(path: str | PathLike[str], *, num_heads: int | None = None) -> nn.Module:
    """A vision transformer of timm with weights of DINO, MAE or DeiT, its sizes read from the weights.

    There is no original to compare with, so nothing is checked but names and shapes.

    Parameters
    ----------
    path : path
        A ``.pth`` file (nothing in it is run) or a ``.safetensors`` file; it may hold the weights beside an optimizer,
        as ``model``, ``teacher`` or ``state_dict``.  Of a teacher and a student the teacher is taken.
    num_heads : int, optional
        Attention heads of a block, which weights do not tell; needed where the width is none that was published.

    Returns
    -------
    nn.Module
        With the classifier that is in the file, or none.

    Raises
    ------
    FileNotFoundError, ValueError
        For a file that is not there, is damaged, or holds something else.
    """
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    found = [one for one in read_checkpoint(path) if "patch_embed.proj.weight" in one.weights]
    if not found:
        raise ValueError(
            f"{path} holds no vision transformer: expected weights with patch_embed.proj.weight among them"
        )
    weights = renamed(found[0].weights, NAMES, UNUSED)
    options = sizes(weights, str(path)) | _by_weights(weights, str(path))
    options["num_heads"] = _heads(options["embed_dim"], num_heads, str(path))
    distilled = "dist_token" in weights
    recipe = Recipe(
        VisionTransformerDistilled if distilled else VisionTransformer,
        options | {"norm_layer": layer_norm(1e-6)},
        weights,
        config={"architecture": str(path).replace("\\", "/").rpartition("/")[2]},
    )
    return assembled(recipe, str(path))


def _heads(width: int, given: int | None, name: str) -> int:
    heads = HEADS.get(width) if given is None else given
    if heads is None:
        raise ValueError(
            f"{name} has a width of {width}, and weights do not tell how many attention heads that is; pass num_heads= "
            f"(often {max(1, width // 64)}: 64 channels each)"
        )
    if heads < 1 or width % heads:
        raise ValueError(f"num_heads must divide the width {width}, got {heads}")
    return heads


def _by_weights(weights: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """What the presence of weights says."""
    prefix = sum(token in weights for token in ("cls_token", "dist_token"))
    tokens = weights["pos_embed"].shape[1] if "pos_embed" in weights else 0
    with_prefix = math.isqrt(tokens - prefix) ** 2 == tokens - prefix
    patches = tokens - prefix if with_prefix else tokens
    side = math.isqrt(patches)
    if side == 0 or side**2 != patches:
        raise ValueError(
            f"{name} has {tokens} position embeddings, expected those of a square of patches and {prefix} more"
        )
    height, width = weights["patch_embed.proj.weight"].shape[2:]
    return {
        "img_size": (side * height, side * width),
        "no_embed_class": not with_prefix,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in weights else None,
        "class_token": "cls_token" in weights,
        "global_pool": "avg" if "fc_norm.weight" in weights or "cls_token" not in weights else "token",
    }
