"""A plain vision transformer as arrays and a description: what the engine of a page runs (``js/src/engine``), or why it cannot.

The weights travel in float16.  The engine knows one architecture: blocks with a norm in front of each sublayer, attention with
one softmax, an MLP with the exact GELU, LayerScale, prefix tokens, and an answer read from a prefix token or a mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from classspace_widgets.models.adapter import Adapter

    Array = np.ndarray[Any, np.dtype[Any]]

LARGEST = float(np.finfo(np.float16).max)
POOLINGS = ("token", "mean_norm", "norm_mean")


def portable_model(adapter: Adapter) -> tuple[dict[str, Any], dict[str, Array]]:
    """The sizes and the weights of a model, for the engine of a page.

    Parameters
    ----------
    adapter : Adapter

    Returns
    -------
    tuple of dict and dict of str to ndarray
        Sizes, prefix tokens, pooling and norms' epsilons; and weights in float16, by the engine's names.

    Raises
    ------
    UnsupportedModelError
        For a model that the engine does not know, with the first reason found.

    Examples
    --------
    >>> about, arrays = portable_model(ClassSpace.bundled().adapter)
    >>> about["blocks"], about["prefix"], arrays["classes.weight"].shape
    (8, ['[CLS]'], (24, 128))
    """
    for reason in _obstacles(adapter):
        raise UnsupportedModelError(
            f"{type(adapter.model).__name__} cannot run inside a page: {reason}; export it without live=True"
        )
    model: Any = adapter.model
    norm: Any = adapter.norm
    weights: dict[str, Tensor | None] = {
        "patches.weight": model.patch_embed.proj.weight.flatten(1),
        "patches.bias": model.patch_embed.proj.bias,
        "prefix": _prefix(model),
        "position": None if model.pos_embed is None else model.pos_embed[0],
        "norm.weight": norm.weight,
        "norm.bias": norm.bias,
        "classes.weight": adapter.embedding,
        "classes.bias": adapter.bias,
    }
    for number, block in enumerate(adapter.blocks):
        weights |= {f"blocks.{number}.{name}": value for name, value in _block(block).items()}
    first: Any = adapter.blocks[0]
    about = {
        "blocks": len(adapter.blocks),
        "heads": adapter.heads,
        "width": adapter.width,
        "patch": list(model.patch_embed.patch_size),
        "grid": list(adapter.grid),
        "prefix": list(adapter.prefix),
        "pooling": adapter.pooling,
        "pool_prefix": adapter.pool_prefix,
        "eps": [float(first.norm1.eps), float(norm.eps)],
    }
    return about, {name: _half(name, value) for name, value in weights.items() if value is not None}


def _prefix(model: Any) -> Tensor | None:
    tokens = [token[0] for token in (model.cls_token, getattr(model, "reg_token", None)) if token is not None]
    return torch.cat(tokens) if tokens else None


def _block(block: Any) -> dict[str, Tensor | None]:
    """The weights of a block by the engine's names."""
    layers = {
        "norm1": block.norm1,
        "qkv": block.attn.qkv,
        "proj": block.attn.proj,
        "norm2": block.norm2,
        "fc1": block.mlp.fc1,
        "fc2": block.mlp.fc2,
    }
    weights: dict[str, Tensor | None] = {}
    for name, layer in layers.items():
        weights |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    for name in ("ls1", "ls2"):
        weights[name] = getattr(getattr(block, name), "gamma", None)
    return weights


def _half(name: str, value: Tensor) -> Array:
    array: Array = value.detach().float().cpu().numpy()
    if not np.abs(array).max(initial=0) <= LARGEST:
        raise UnsupportedModelError(f"the weights {name} hold numbers that float16 cannot hold (above {LARGEST:.0f})")
    return array.astype(np.float16)


def _obstacles(adapter: Adapter) -> Iterator[str]:
    """Why the engine cannot run a model; nothing where it can."""
    model: Any = adapter.model
    if type(model).__name__ != "VisionTransformer" or not type(model).__module__.startswith("timm."):
        yield f"the page knows timm's plain VisionTransformer only, this is a {type(model).__module__}.{type(model).__name__}"
        return
    embed = model.patch_embed
    if type(embed).__name__ != "PatchEmbed" or embed.proj.in_channels != 3:
        yield "its patches are not embedded by one convolution of three channels"
    if not _identity(embed.norm) or not _identity(model.norm_pre):
        yield "a norm acts on its embedding"
    if getattr(model, "dynamic_img_size", False):
        yield "it takes pictures of several sizes; build it for one (dynamic_img_size=False)"
    if adapter.pooling not in POOLINGS:
        yield f"its answer is read by {adapter.pooling!r}, the page knows {', '.join(POOLINGS)}"
    if not _layer_norm(adapter.norm):
        yield "the norm in front of its classifier is not a LayerNorm with weights"
    blocks: tuple[Any, ...] = adapter.blocks
    for number, block in enumerate(blocks, start=1):
        if (reason := _obstacle(block)) is not None:
            yield f"{reason} (block {number})"
            return
    if len({norm.eps for block in blocks for norm in (block.norm1, block.norm2)}) > 1:
        yield "the norms of its blocks have several epsilons"


def _obstacle(block: Any) -> str | None:
    """Why the engine does not know a block."""
    kind = type(block).__name__
    if kind != "Block" or type(block.attn).__name__ != "Attention" or type(block.mlp).__name__ != "Mlp":
        return f"its blocks are of type {kind} with {type(getattr(block, 'attn', None)).__name__} and {type(getattr(block, 'mlp', None)).__name__}"
    attention, mlp = block.attn, block.mlp
    norms = (getattr(attention, name, None) for name in ("q_norm", "k_norm", "norm"))
    if not all(_identity(norm) for norm in (*norms, getattr(mlp, "norm", None))):
        return "a norm acts inside its attention or MLP"
    if getattr(attention, "gate", None) is not None:
        return "a gate acts on its heads"
    if type(mlp.act).__name__ != "GELU" or getattr(mlp.act, "approximate", "none") != "none":
        return f"its MLP uses {mlp.act}, not the exact GELU"
    if not (_layer_norm(block.norm1) and _layer_norm(block.norm2)):
        return "its norms are not LayerNorms with weights"
    layers = (attention.qkv, attention.proj, mlp.fc1, mlp.fc2)
    if any(type(layer) is not torch.nn.Linear for layer in layers):
        return "its layers are not plain linear maps (merge adapters such as LoRA first)"
    return None


def _identity(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, torch.nn.Identity)


def _layer_norm(module: Any) -> bool:
    return isinstance(module, torch.nn.LayerNorm) and module.weight is not None
