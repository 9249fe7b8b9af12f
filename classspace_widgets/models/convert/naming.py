"""Names and shapes of weights: from the ways that libraries write a vision transformer to timm's."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    Weights = dict[str, Tensor]


def renamed(weights: Mapping[str, Tensor], names: Iterable[tuple[str, str]], unused: Sequence[str] = ()) -> Weights:
    """Weights by other names.

    Parameters
    ----------
    weights : mapping of str to Tensor
    names : iterable of tuple of str
        Regular expressions and what takes their place, used one after the other.
    unused : sequence of str
        Regular expressions of new names that have no part in the model's answer, and are left out.

    Returns
    -------
    dict of str to Tensor

    Examples
    --------
    >>> list(renamed({"layer.0.norm.weight": torch.ones(2), "mask": torch.ones(1)}, [(r"^layer", "blocks")], ["^mask$"]))
    ['blocks.0.norm.weight']
    """
    pairs = [(re.compile(pattern), new) for pattern, new in names]
    out: Weights = {}
    for key, value in weights.items():
        for pattern, new in pairs:
            key = pattern.sub(new, key)
        if not any(re.search(pattern, key) for pattern in unused):
            out[key] = value
    return out


def fused(weights: Weights, *, bias: str = "one") -> Weights:
    """Weights whose queries, keys and values, kept apart as ``attn.q``, ``attn.k`` and ``attn.v``, are one ``attn.qkv``.

    Parameters
    ----------
    weights : dict of str to Tensor
    bias : str
        ``"one"``: the three biases become one (a missing one is 0); ``"apart"``: they become ``attn.q_bias`` and
        ``attn.v_bias``, and there must be none of the keys.

    Returns
    -------
    dict of str to Tensor
    """
    out: Weights = {}
    for key, value in weights.items():
        found = re.fullmatch(r"(.*attn\.)([qkv])\.(weight|bias)", key)
        if found is None:
            out[key] = value
            continue
        before, part, kind = found.groups()
        if kind == "bias" and bias == "apart":
            out[f"{before}{part}_bias"] = value
        elif f"{before}qkv.{kind}" not in out:
            parts = [weights.get(f"{before}{one}.{kind}") for one in "qkv"]
            out[f"{before}qkv.{kind}"] = torch.cat([torch.zeros_like(value) if one is None else one for one in parts])
    return out


def block_count(weights: Mapping[str, Tensor]) -> int:
    """Number of blocks that weights by timm's names are of."""
    return len({key.split(".")[1] for key in weights if key.startswith("blocks.")})


def sizes(weights: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Options of timm's vision transformers that follow from the shapes of weights by timm's names.

    Parameters
    ----------
    weights : mapping of str to Tensor
    name : str
        The original's, for messages.

    Returns
    -------
    dict
        ``embed_dim``, ``in_chans``, ``patch_size``, ``depth``, ``mlp_ratio``, ``qkv_bias`` and ``num_classes``.
    """
    patches, hidden = weights.get("patch_embed.proj.weight"), weights.get("blocks.0.mlp.fc2.weight")
    if patches is None or patches.ndim != 4 or hidden is None:
        missing = "a convolution for its patches" if hidden is not None else "an MLP of two linear maps in its blocks"
        raise UnsupportedModelError(f"{name} cannot be converted: expected {missing}, found none")
    head = weights.get("head.weight")
    return {
        "embed_dim": patches.shape[0],
        "in_chans": patches.shape[1],
        "patch_size": tuple(patches.shape[2:]),
        "depth": block_count(weights),
        "mlp_ratio": ratio(hidden.shape[1], patches.shape[0]),
        "qkv_bias": any(f"blocks.0.attn.{bias}" in weights for bias in ("qkv.bias", "q_bias")),
        "num_classes": 0 if head is None else head.shape[0],
    }


def ratio(hidden: int, width: int) -> float:
    """What timm multiplies a width by and cuts down to get so many hidden channels."""
    exact = hidden / width
    return exact if int(width * exact) == hidden else (hidden + 0.5) / width


def sides(size: Any) -> tuple[int, int]:
    """Height and width of one number, or of two."""
    return (int(size), int(size)) if isinstance(size, (int, float)) else (int(size[0]), int(size[1]))


def layer_norm(eps: float) -> Callable[..., nn.Module]:
    """timm's layer norm with another epsilon."""
    from timm.layers import LayerNorm

    return partial(LayerNorm, eps=float(eps))


def activation(name: Any, owner: str) -> Callable[..., nn.Module]:
    """The activation that a configuration names.

    Parameters
    ----------
    name : str
        As transformers has it, such as ``"gelu"`` or ``"quick_gelu"``.
    owner : str
        The model's name, for messages.

    Returns
    -------
    callable
        That makes the module.
    """
    from timm.layers import QuickGELU

    known: dict[str, Callable[..., nn.Module]] = {
        "gelu": nn.GELU,
        "quick_gelu": QuickGELU,
        "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
        "gelu_new": partial(nn.GELU, approximate="tanh"),
        "relu": nn.ReLU,
        "silu": nn.SiLU,
        "swish": nn.SiLU,
    }
    if name not in known:
        raise UnsupportedModelError(
            f"{owner} cannot be converted: its MLPs use {name!r}, expected one of {', '.join(known)}"
        )
    return known[name]
