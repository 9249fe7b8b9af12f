"""Names of the classes of a model, from timm's own records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def names_of(model: nn.Module, count: int, *, own: bool = True) -> tuple[str, ...]:
    """Class names of a timm model: its labels, or ImageNet's, or ``"class 0"``, ``"class 1"``, ...

    timm guesses the subset of ImageNet from the number of classes, so the guess is believed only for a model whose
    configuration says that it was trained for as many.

    Parameters
    ----------
    model : nn.Module
    count : int
        Number of classes C.
    own : bool
        Whether the class embedding is the model's own; a foreign one has no names in the model's records.

    Returns
    -------
    tuple of str
        C names, all different.
    """
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    names: Sequence[str] | None = config.get("label_names")
    if own and not names and config.get("num_classes") == count:
        names = _imagenet(model, count)
    if not own or not names or len(names) != count:
        names = [f"class {i}" for i in range(count)]
    return distinct(names)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The same names, with a number after those that occur again ("crane", "crane (2)")."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(out)


def _imagenet(model: nn.Module, count: int) -> list[str] | None:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if not subset:
        return None
    info = ImageNetInfo(subset)
    if info.num_classes() != count:
        return None
    # "goldfish, Carassius auratus": the first of a class's names is the one that people use.
    return [str(info.index_to_description(i, detailed=False)).split(", ")[0] for i in range(count)]
