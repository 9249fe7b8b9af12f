"""`convert`: a model of another library into timm's equal one."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from classspace_widgets.models.adapter import unwrapped
from classspace_widgets.models.convert.assemble import assembled, check_equal
from classspace_widgets.models.convert.naming import sides
from classspace_widgets.models.convert.staleness import SameWeights
from classspace_widgets.models.convert.wrapped import in_evaluation
from classspace_widgets.models.placing import copied
from classspace_widgets.models.refusals import REMEDY, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from classspace_widgets.models.convert.recipe import Recipe

FAMILIES = {
    "torchvision.models.vision_transformer": ("torchvision_vit", r"VisionTransformer"),
    "transformers.models.vit.modeling_vit": ("hf_vit", r"ViT\w+"),
    "transformers.models.deit.modeling_deit": ("hf_vit", r"DeiT\w+"),
    "transformers.models.beit.modeling_beit": ("hf_beit", r"Beit\w+"),
    "transformers.models.dinov2.modeling_dinov2": ("hf_dinov2", r"Dinov2\w+"),
    "transformers.models.dinov2_with_registers.modeling_dinov2_with_registers": (
        "hf_dinov2",
        r"Dinov2WithRegisters\w+",
    ),
    "transformers.models.dinov3_vit.modeling_dinov3_vit": ("hf_dinov3", r"DINOv3ViT\w+"),
    "transformers.models.clip.modeling_clip": ("hf_clip", r"CLIP(?!Text)\w+"),
    "transformers.models.siglip.modeling_siglip": ("hf_clip", r"Siglip(?!Text)\w+"),
    "open_clip.transformer": ("open_clip_vit", r"VisionTransformer"),
    "open_clip.model": ("open_clip_vit", r"CLIP|CustomTextCLIP"),
}
"""By where a class is defined: the module here that converts it, and the names of the classes that are whole models."""


def family_of(model: nn.Module) -> str | None:
    """The module of this package that converts a model, or None; a class derived from a library's counts as its."""
    for kind in type(model).__mro__:
        module, names = FAMILIES.get(kind.__module__, ("", ""))
        if module and re.fullmatch(names, kind.__name__):
            return module
    return None


def refuse_other_family(model: nn.Module) -> None:
    """Raise `UnsupportedModelError` for a model of transformers or open_clip that no module here converts."""
    for library in ("transformers.models.", "open_clip."):
        kind = next((kind for kind in type(model).__mro__ if kind.__module__.startswith(library)), None)
        # timm's own models inside are found as in any other wrapper.
        if kind is not None and not any(hasattr(part, "patch_embed") for part in model.modules()):
            raise UnsupportedModelError(
                f"{type(model).__name__} of {library.partition('.')[0]} is not supported: ViT, DeiT, BEiT, DINOv2, DINOv3 and "
                f"the vision towers of CLIP and SigLIP are (docs/supported_models.md)"
            )


def convert(model: nn.Module, *, image_size: int | Sequence[int] | None = None) -> nn.Module:
    """Convert a vision transformer of transformers, torchvision or open_clip into timm's equal one.

    Weights that need no change are the original's own tensors, in the same memory; queries, keys and values that
    the original keeps apart are joined, which copies them.  Both models are run on one picture of noise, and
    their residual streams and answers must agree to 1e-4 of the largest number, in float32.

    The conversion is of the weights as they are now.  It cannot follow further training of the original: tensors that
    are shared change with it, joined ones do not, so that it would be neither the old model nor the new one.  A pass
    of the conversion then raises ``RuntimeError``: convert again after training.  Changing weights of the conversion
    changes the original where they are shared; ``copy.deepcopy(converted)`` has its own.

    Parameters
    ----------
    model : nn.Module
        With or without a classifier.
    image_size : int, or height and width, optional
        In pixels; by default what the model was built for.  Position embeddings are resampled by the original's own
        method.

    Returns
    -------
    nn.Module
        timm's model, in evaluation mode, where the original is and in its precision.  Names of classes and
        preprocessing stand in its ``pretrained_cfg``, as far as the original knows them.

    Raises
    ------
    UnsupportedModelError
        For a model that is not known, or that does not compute the same as its equivalent, with the first block
        that differs.

    Examples
    --------
    >>> from torchvision.models import VisionTransformer
    >>> original = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
    >>> type(convert(original))
    <class 'timm.models.vision_transformer.VisionTransformer'>
    """
    return converted(model, image_size=image_size)[0]


def converted(model: nn.Module, *, image_size: int | Sequence[int] | None = None) -> tuple[nn.Module, Recipe]:
    """A conversion as in `convert`, and the recipe that it follows."""
    model = unwrapped(model)
    name = type(model).__name__
    family = family_of(model)
    if family is None:
        raise UnsupportedModelError(f"{name} is no vision transformer of another library that is known; {REMEDY}")
    size = None if image_size is None else sides(image_size)
    make: Callable[..., Recipe] = import_module(f"{__package__}.{family}").recipe
    recipe = make(model, name, size)
    made = assembled(recipe, name)
    if next(made.parameters()).dtype in (torch.float32, torch.float64):
        with in_evaluation(model):
            check_equal(recipe, made, name)
    else:
        # Half precision rounds too much to tell: both are compared as float32, the numbers being the same.
        precise = copied(model).float().eval()
        with in_evaluation(precise):
            check_equal(make(precise, name, size), assembled(make(precise, name, size), name), name)
    made.register_forward_pre_hook(SameWeights(model, lambda original: make(original, name, size).weights))
    return made, recipe
