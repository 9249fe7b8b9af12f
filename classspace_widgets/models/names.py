"""Names of the classes of a model, from timm's own records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from classspace_widgets.models.adapter import unwrapped

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
    model = unwrapped(model)
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    names: Sequence[str] | None = config.get("label_names")
    if own and not names:
        names = _names_in(_imagenet(model, count))
    if not own or not names or len(names) != count:
        names = [f"class {i}" for i in range(count)]
    return distinct(names)


def given_names(names: Iterable[Any], count: int) -> tuple[str, ...]:
    """Class names as a caller gives them: in the classes' order, or by number as in ``{0: "cat", 1: "dog"}``."""
    if isinstance(names, str):
        raise TypeError(f"class_names must be a sequence of {count} names, got the text {names!r}")
    if isinstance(names, Mapping):
        numbered = {int(number): name for number, name in names.items() if str(number).isdigit()}
        if sorted(numbered) != list(range(count)):
            raise ValueError(f"class_names as a mapping must name the classes 0..{count - 1}, got {list(names)[:5]}")
        names = [numbered[number] for number in range(count)]
    listed = list(names)
    if len(listed) != count:
        raise ValueError(f"class_names must have one name for each of the {count} classes, got {len(listed)}")
    empty = [i for i, name in enumerate(listed) if name is None or not str(name).strip()]
    if empty:
        raise ValueError(f"every class needs a name, class {empty[0]} has {listed[empty[0]]!r}")
    return distinct([str(name) for name in listed])


def wordnet_ids(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """WordNet ids of the classes (``"n01443537"``), which ImageNet's folders are called by; empty for other classes."""
    config: dict[str, Any] = getattr(unwrapped(model), "pretrained_cfg", None) or {}
    if config.get("wordnet_ids") and tuple(config["label_names"]) == tuple(names):
        return tuple(config["wordnet_ids"])
    info = _imagenet(unwrapped(model), len(names))
    known = _names_in(info)
    return tuple(info.label_names()) if known and distinct(known) == tuple(names) else ()


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The same names, with a number after those that occur again ("crane", "crane (2)")."""
    seen: dict[str, int] = {}
    taken = set(names)
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        new = name if seen[name] == 1 else f"{name} ({seen[name]})"
        while seen[name] > 1 and new in taken:
            seen[name] += 1
            new = f"{name} ({seen[name]})"
        taken.add(new)
        out.append(new)
    return tuple(out)


def _imagenet(model: nn.Module, count: int) -> Any:
    """What timm knows of the subset of ImageNet that a model was trained on, or None."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if (getattr(model, "pretrained_cfg", None) or {}).get("num_classes") != count:
        return None
    subset = infer_imagenet_subset(model)
    if not subset:
        return None
    info = ImageNetInfo(subset)
    return info if info.num_classes() == count else None


def _names_in(info: Any) -> list[str] | None:
    # "goldfish, Carassius auratus": the first of a class's names is the one that people use.
    if info is None:
        return None
    return [str(info.index_to_description(i, detailed=False)).split(", ")[0] for i in range(info.num_classes())]
