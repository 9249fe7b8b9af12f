"""`take`: the timm vision transformer in whatever a caller has: itself, converted, or inside a wrapper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classspace_widgets.models.adapter import unwrapped
from classspace_widgets.models.convert.convert import converted, family_of, refuse_other_family
from classspace_widgets.models.convert.hugging_face import class_labels
from classspace_widgets.models.convert.wrapped import inner_models, same_answer
from classspace_widgets.models.refusals import UnsupportedModelError, expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


@dataclass(frozen=True)
class Taken:
    """What `take` found.

    Attributes
    ----------
    model : nn.Module
        The vision transformer, as timm has it.
    origin : str
        In words: what was converted, and what was left out around it; empty where the caller's model is taken as it is.
    mean, std : tuple of float, or None
        Where a normalisation in front of the model was left out, what it did to pixels in 0..1.
    projection : bool
        Whether the last linear map goes to a space shared with text instead of to classes.
    names : tuple of str
        Names of the classes, where what was left out knows them.
    """

    model: nn.Module
    origin: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    projection: bool = False
    names: tuple[str, ...] = ()

    def require_classes(self) -> None:
        """Raise `UnsupportedModelError` where there are no classes to read without an embedding of the caller's own."""
        head: Any = getattr(self.model, "head", None)
        if self.projection:
            raise UnsupportedModelError(
                f"the head of {self.origin or type(self.model).__name__} is a projection to the {head.out_features} "
                "numbers that pictures share with text, and no classifier; pass the text features of your classes: "
                f"ClassSpace(model, class_embedding=features, class_names=[...]) with features [C, {head.out_features}]; or fit a "
                "classifier on labelled pictures: ClassSpace.fit(model, 'pictures/')"
            )
        if self.origin and not any(True for _ in head.parameters()):
            pool: Any = getattr(self.model, "attn_pool", None)
            width: Any = self.model.embed_dim
            what = (
                "a class embedding of your own"
                if pool is None
                else "features of your classes, such as those of its text"
            )
            options = "class_embedding=embedding, " + ("" if pool is None else "class_norm='pool', ")
            raise UnsupportedModelError(
                f"{self.origin} has no classifier; pass {what}: "
                f"ClassSpace(model, {options}class_names=[...]) with embedding [C, {width}]; or fit a classifier on labelled "
                "pictures: ClassSpace.fit(model, 'pictures/')"
            )


def take(model: nn.Module, *, image_size: int | Sequence[int] | None = None) -> Taken:
    """The vision transformer to read in a model of timm, of another library, or inside a wrapper.

    A model of transformers, torchvision or open_clip is converted (see `convert`).  A module that holds exactly one
    vision transformer is taken without what stands around it, where the answer to a picture of noise is the same, or
    is the same behind a normalisation whose mean and standard deviation can be read.

    Parameters
    ----------
    model : nn.Module
    image_size : int, or height and width, optional
        For a model that is converted.

    Returns
    -------
    Taken
        With the model itself where it is none of these: `adapt` says what is wrong with it.

    Raises
    ------
    UnsupportedModelError
        For a model that cannot be converted, or a wrapper that changes the answer, with the part to pass instead.
    """
    model = unwrapped(model)
    if is_timm(model) or hasattr(model, "merge_and_unload"):
        return Taken(model)
    if family_of(model) is not None:
        return _of_library(model, image_size)
    refuse_other_family(model)
    inner = inner_models(model, lambda part: is_timm(part) or family_of(part) is not None)
    return Taken(model) if len(inner) != 1 else _without_wrapper(model, inner[0], image_size)


def is_timm(model: nn.Module) -> bool:
    """Whether a model is built as timm's vision transformers are."""
    return hasattr(model, "patch_embed") and hasattr(model, "blocks")


def _of_library(model: nn.Module, image_size: int | Sequence[int] | None) -> Taken:
    made, recipe = converted(model, image_size=image_size)
    library = type(model).__module__.partition(".")[0]
    origin = f"{type(model).__name__} of {library}, converted into timm's {type(made).__name__}"
    return Taken(made, origin, projection=recipe.projection)


def _without_wrapper(model: nn.Module, where: str, image_size: int | Sequence[int] | None) -> Taken:
    part = unwrapped(model.get_submodule(where))
    inside = Taken(part) if is_timm(part) else _of_library(part, image_size)
    found = same_answer(model, inside.model, where)
    path = expression(model, where)
    if isinstance(found, str):
        raise UnsupportedModelError(
            f"{type(model).__name__} is no vision transformer itself, and {found}; it holds one: pass {path} (what stands "
            "around it is then left out; give mean= and std= where that normalises the pictures)"
        )
    origin = f"{path} of a {type(model).__name__}" + (f", a {inside.origin}" if inside.origin else "")
    names = _names(model, inside.model)
    if found is None:
        return Taken(inside.model, origin, projection=inside.projection, names=names)
    origin += f", with the mean and standard deviation of {expression(model, found.where) if found.where else 'model'}"
    return Taken(inside.model, origin, found.mean, found.std, inside.projection, names)


def _names(model: nn.Module, inside: nn.Module) -> tuple[str, ...]:
    """Names of classes in a wrapper's configuration, as transformers has it, if it has one for each of the model's."""
    labels = class_labels(getattr(getattr(model, "config", None), "id2label", None) or {})
    return tuple(labels) if len(labels) == getattr(inside, "num_classes", None) else ()
