"""A space of a backbone without a classifier: one is fitted on labelled pictures and put into the model as its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.data.sets import as_dataset
from classspace_widgets.fitting.classifier import fit_classifier
from classspace_widgets.models import adapt
from classspace_widgets.models.backbone import Backbone, backbone_named
from classspace_widgets.models.convert.take import is_timm, take
from classspace_widgets.models.new_head import install_head, possible_kinds
from classspace_widgets.models.placing import copied
from classspace_widgets.space.space import ClassSpace

if TYPE_CHECKING:
    from os import PathLike

    from torch import nn

    from classspace_widgets.models.convert.take import Taken


def own_model(
    backbone: nn.Module | str | PathLike[str],
    *,
    pretrained: bool = True,
    checkpoint: str | PathLike[str] | None = None,
    image_size: Any = None,
    options: dict[str, Any] | None = None,
) -> tuple[Taken, nn.Module, Backbone]:
    """A vision transformer that may be given another head: built by name, or the caller's with its tensors but other modules.

    Parameters
    ----------
    backbone : nn.Module, or str or path
    pretrained, checkpoint, image_size, options
        As in `ClassSpace.fit`.

    Returns
    -------
    tuple
        What was taken, the model, and how to make it again.
    """
    sides = None if image_size is None else (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
    if isinstance(backbone, torch.nn.Module):
        given = [name for name, value in (("checkpoint", checkpoint), *(options or {}).items()) if value is not None]
        if given:
            raise TypeError(f"{given[0]}= goes with the name of a model; a {type(backbone).__name__} is taken as it is")
        made, original = None, backbone
    else:
        original, made = backbone_named(
            backbone, pretrained=pretrained, checkpoint=checkpoint, image_size=sides, options=options or {}
        )
    taken = take(original, image_size=image_size if made is None or made.source == "pretrained" else None)
    model = taken.model
    if not is_timm(model):
        ClassSpace(model)  # which says what is wrong with it
    width: Any = getattr(model, "embed_dim", 1)
    adapt(model, class_embedding=torch.zeros(2, width if isinstance(width, int) else 1))
    if made is None:
        if any(part is model for part in original.modules()):
            model = copied(model, share_weights=True)
        made = Backbone("object", type(original).__name__)
    return taken, model, made


def fitted_space(
    backbone: nn.Module | str | PathLike[str],
    data: Any,
    *,
    features: str,
    pretrained: bool,
    checkpoint: str | PathLike[str] | None,
    image_size: Any,
    class_names: Any,
    fit: dict[str, Any],
    space: dict[str, Any],
    options: dict[str, Any],
) -> ClassSpace:
    """See `ClassSpace.fit`."""
    data = as_dataset(data)
    taken, model, made = own_model(
        backbone, pretrained=pretrained, checkpoint=checkpoint, image_size=image_size, options=options
    )
    kinds = possible_kinds(model) if features == "auto" else (features,)
    install_head(model, kinds[0], 2)
    for part in ("mean", "std"):
        space[part] = getattr(taken, part) if space[part] is None else space[part]
    if isinstance(backbone, str):
        space["name"] = space["name"] or backbone
    reading = ClassSpace(model, class_names=("no", "yes"), image_size=image_size, **space)
    reading.origin = taken.origin
    found = fit_classifier(reading, data, kinds, class_names=class_names, **fit)
    head = install_head(reading.adapter.model, found.features, len(found.class_names))
    with torch.no_grad():
        head.weight.copy_(found.weight)
        head.bias.copy_(found.bias)
    whole = ClassSpace(reading.model, class_names=found.class_names, name=reading.name, check=False)
    whole.preprocessing, whole.origin = reading.preprocessing, taken.origin
    whole.identities = whole.check()
    whole.backbone, whole.fitted = made, found
    return whole
