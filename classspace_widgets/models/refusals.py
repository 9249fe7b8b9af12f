"""Architectures whose class embedding space is not well defined, by name, with the reason and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn


class UnsupportedModelError(ValueError):
    """The model has no well-defined class embedding space; the message says why and what to do."""


_HIERARCHY = "its width and its tokens change between stages, so there is no single residual stream to read"
_TAIL = "class tokens join only after the image blocks, so image tokens never share a residual stream with them"

REASONS = {
    "Cait": _TAIL,
    "Xcit": f"its attention mixes channels instead of tokens, and {_TAIL}",
    "VisionTransformerSAM": "a convolutional neck follows its blocks, and most of them attend inside windows",
    "PoolingVisionTransformer": _HIERARCHY,
    "TNT": "every patch has an inner transformer of its own that writes into the outer stream",
    "VOLO": f"outlook attention works on another grid, and {_TAIL}",
    "Levit": _HIERARCHY,
    "LevitDistilled": _HIERARCHY,
    "Hiera": _HIERARCHY,
    "HieraDet": _HIERARCHY,
    "SwinTransformer": _HIERARCHY,
    "SwinTransformerV2": _HIERARCHY,
    "SwinTransformerV2Cr": _HIERARCHY,
    "CrossVit": "two streams of different widths exchange class tokens",
    "ConVit": "the class token joins in the middle of the network, after the gated positional blocks",
    "NaFlexVit": "its sequences have variable length, with padding in the place of image tokens",
    "MultiScaleVit": _HIERARCHY,
    "CoaT": _HIERARCHY,
    "Twins": _HIERARCHY,
    "Nest": _HIERARCHY,
    "DaVit": _HIERARCHY,
    "GlobalContextVit": _HIERARCHY,
    "MaxxVit": _HIERARCHY,
    "PyramidVisionTransformerV2": _HIERARCHY,
    "Visformer": _HIERARCHY,
    "TinyVit": _HIERARCHY,
    "MlpMixer": "it has no attention and no tokens that attend",
}
"""Reason by class name."""

REMEDY = "use a plain ViT, DeiT, DINOv2, CLIP, BEiT or EVA model (docs/supported_models.md lists what works)"
EMBEDDING_REMEDY = "pass class_embedding=[C, D] to read its tokens through an embedding of your own"
FIT = "ClassSpace.fit(model, 'pictures/') with a folder of labelled pictures, pictures/<class>/<picture>"


def refuse_by_name(name: str) -> None:
    """Raise `UnsupportedModelError` if an architecture is known not to have a class embedding space."""
    if name in REASONS:
        raise UnsupportedModelError(f"{name} is not supported: {REASONS[name]}; {REMEDY}")


def expression(model: nn.Module, path: str) -> str:
    """Python for a part of ``model`` by its dotted name: ``blocks.0.attn`` is ``model.blocks[0].attn``.

    Parameters
    ----------
    model : nn.Module
    path : str

    Returns
    -------
    str

    Examples
    --------
    >>> expression(torch.nn.Sequential(torch.nn.Linear(2, 2)), "0.weight")
    'model[0].weight'
    """
    text = "model"
    owner: Any = model
    for part in path.split("."):
        if part.isdigit() and isinstance(owner, (torch.nn.Sequential, torch.nn.ModuleList)):
            text += f"[{part}]"
        else:
            text += f".{part}" if part.isidentifier() else f".get_submodule({part!r})"
        owner = getattr(owner, "_modules", {}).get(part)
    return text


def refuse_by_form(model: nn.Module) -> None:
    """Raise `UnsupportedModelError` for models in a form that hooks do not act in: scripted, traced, exported, quantised."""
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            f"{name} is a model compiled by torch.jit (scripted or traced), inside which hooks do not run; load its weights "
            "into the model that it was made of: plain = timm.create_model(...); plain.load_state_dict(model.state_dict())"
        )
    if isinstance(model, torch.fx.GraphModule):
        raise UnsupportedModelError(
            f"{name} is a graph (torch.fx or torch.export), whose blocks are no modules any more; give ClassSpace the model "
            "that the graph was made of, or load its weights into one: "
            "plain = timm.create_model(...); plain.load_state_dict(model.state_dict())"
        )
    for part, module in model.named_modules():
        if _quantised(module):
            raise UnsupportedModelError(
                f"{name} is quantised ({part or 'the model itself'} is a {type(module).__module__}.{type(module).__name__}), so "
                "it has no weights of floating point to read; give ClassSpace the model as it was before, and for less "
                "memory dtype=torch.bfloat16"
            )


def _quantised(module: nn.Module) -> bool:
    kind = type(module).__module__
    if kind.startswith(("torch.ao.nn.", "torch.nn.quantized", "torch.nn.intrinsic")):
        return True
    weight: Any = module.__dict__.get("_parameters", {}).get("weight")
    return weight is not None and not weight.is_floating_point()


def refuse_changed_head(head: Any, name: str) -> None:
    """Raise `UnsupportedModelError` for a classifier that adapters for fine-tuning (PEFT, LoRA) have put a wrapper around."""
    if any(hasattr(head, part) for part in ("modules_to_save", "base_layer", "lora_A", "original_module")):
        raise UnsupportedModelError(
            f"{name} has adapters for fine-tuning around its classifier ({type(head).__name__}); merge them first, and pass "
            "what comes out: ClassSpace(peft_model.merge_and_unload())"
        )
