"""A classifier for a backbone that has none: features of labelled pictures from one pass, and a logistic regression on them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from classspace_widgets.data.classes import label_names
from classspace_widgets.data.prepare import Item, Preparer, prepared_batches
from classspace_widgets.describe import short_repr
from classspace_widgets.fitting.logistic import Validation, chosen, cross_validate, fit_logistic
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.lookup import at_least
from classspace_widgets.masks import DatasetError
from classspace_widgets.models.new_head import features_of
from classspace_widgets.progress import progress_bar, quiet
from classspace_widgets.trace.hooks import evaluating, exclusive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from classspace_widgets.images import Preprocessing
    from classspace_widgets.models import Adapter

ANY_LABEL = 1 << 62
"""Labels are checked when all are known."""

MIN_PICTURES = 2
"""A class's pictures: one to fit with where another is left out."""


class Backbone(Protocol):
    """What fitting a classifier needs of a `ClassSpace`."""

    adapter: Adapter
    preprocessing: Preprocessing
    device: torch.device
    dtype: torch.dtype
    name: str

    @property
    def model(self) -> nn.Module:
        """The model, with any classifier of the kind that is wanted."""
        ...


@dataclass(frozen=True)
class ClassifierFit:
    """A classifier fitted on labelled pictures, and how well it did on those left out.

    Made by `fit_classifier`; a space's own is ``space.fitted``.

    Attributes
    ----------
    features : str
        What it reads: ``"token"``, ``"mean"``, ``"both"`` or ``"pooled"``.
    weight : Tensor [C, F], float32
    bias : Tensor [C], float32
    class_names : tuple of str
    penalty : float
        Chosen for the smallest loss on pictures left out.
    accuracy : float
        With that penalty, of the pictures left out, 0 to 1.
    n_pictures : int
    folds : int
        Parts of the pictures that were left out one after the other.
    tried : dict of str to Validation
        All features and penalties that were tried.
    """

    __repr__ = short_repr

    features: str
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    class_names: tuple[str, ...]
    penalty: float
    accuracy: float
    n_pictures: int
    folds: int
    tried: dict[str, Validation] = field(default_factory=dict, repr=False)

    def in_words(self) -> str:
        """What was fitted, and its accuracy on pictures left out, in one line."""
        read = {"token": "the first token", "mean": "the mean of the image tokens", "both": "[CLS] beside the mean"}
        return (
            f"{len(self.class_names)} classes fitted on {self.n_pictures} pictures, reading "
            f"{read.get(self.features, 'all tokens, pooled')}: accuracy {self.accuracy:.3f} in {self.folds}-fold "
            f"cross-validation, penalty {self.penalty:.2g}"
        )


def fit_classifier(
    space: Backbone,
    data: Any,
    kinds: Sequence[str],
    *,
    class_names: Any = None,
    batch_size: int = 16,
    workers: int = 2,
    seed: int = 0,
    progress: bool = True,
) -> ClassifierFit:
    """Fit a classifier on the features that a backbone gives labelled pictures; its weights stay as they are.

    Parameters
    ----------
    space : Backbone
    data : data set
        As `data.sets.as_dataset` returns it.
    kinds : sequence of str
        Features to choose from: see `new_head.features_of`.
    class_names, batch_size, workers, seed, progress
        As in `ClassSpace.fit`.

    Returns
    -------
    ClassifierFit

    Raises
    ------
    DatasetError
        For too few classes or pictures, or labels with gaps.
    """
    at_least(batch_size, "batch_size", 1)
    names = _names_by_label(data, class_names)
    features, labels = _collect(space, data, kinds, batch_size, workers, progress)
    names = names or _numbered(labels)
    labels = _checked(labels, names)
    with quiet(not progress):
        tried = [cross_validate(each, labels, len(names), seed=seed) for each in features]
        best = chosen(tried)
        found = tried[best]
        penalty = found.penalties[found.best]
        weight, bias = fit_logistic(features[best], labels, len(names), penalty)
    return ClassifierFit(
        kinds[best],
        weight.float(),
        bias.float(),
        tuple(names.values()),
        penalty,
        found.accuracy[found.best],
        len(labels),
        found.folds,
        dict(zip(kinds, tried, strict=True)),
    )


def _collect(
    space: Backbone, data: Any, kinds: Sequence[str], batch_size: int, workers: int, progress: bool
) -> tuple[list[Tensor], Tensor]:
    """Features of every kind ``[n, F]``, and labels ``[n]`` as the data set has them, in one pass."""
    prepare = Preparer(data, PixelTransform.of(space.preprocessing), space.adapter.grid, ANY_LABEL)
    parts = [range(start, min(start + batch_size, len(data))) for start in range(0, len(data), batch_size)]
    features: list[list[Tensor]] = [[] for _ in kinds]
    labels: list[int] = []
    unread = []
    with (
        exclusive(space.model),
        evaluating(space.model),
        torch.no_grad(),
        progress_bar(len(data), "features", "picture", show=progress) as bar,
    ):
        for items in prepared_batches(prepare, parts, workers=workers):
            good = [item for item in items if isinstance(item, Item)]
            unread += [item for item in items if not isinstance(item, Item)]
            if good:
                pixels = torch.stack([item.pixels for item in good]).to(space.device, space.dtype)
                for kept, each in zip(features, features_of(space.adapter.model, pixels, kinds), strict=True):
                    kept.append(each.float())
                labels += [item.label for item in good]
            bar.update(len(items))
    if not labels:
        reason = f" ({unread[0].reason})" if unread else ""
        raise DatasetError(f"none of the {len(data)} pictures could be read{reason}")
    if unread:
        warnings.warn(
            f"{len(unread)} of {len(data)} pictures could not be read and are left out; the first is picture "
            f"{unread[0].index}: {unread[0].reason}",
            stacklevel=4,
        )
    joined = [torch.cat(each) for each in features]
    if not all(bool(torch.isfinite(each).all()) for each in joined):
        raise ValueError(
            f"{space.name} gives NaN or infinite features in {space.dtype}; fit with dtype=torch.float32, or check its weights"
        )
    return joined, torch.tensor(labels, device=space.device)


def _names_by_label(data: Any, given: Any) -> dict[int, str]:
    """Names of classes by the data set's labels, as the caller or the data set says; empty where neither does."""
    known = label_names(data)
    if given is None:
        return known
    if isinstance(given, str):
        raise TypeError(f"class_names must be a sequence of names, got the text {given!r}")
    if isinstance(given, Mapping):
        names = {int(label): str(name) for label, name in sorted(given.items(), key=lambda pair: int(pair[0]))}
    else:
        listed = [str(name) for name in given]
        if known and len(listed) != len(known):
            raise DatasetError(f"class_names must name the data set's {len(known)} classes, got {len(listed)} names")
        names = dict(zip(known or range(len(listed)), listed, strict=True))
    twice = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"class_names holds {twice!r} twice; every class needs a name of its own")
    return names


def _numbered(labels: Tensor) -> dict[int, str]:
    """Names of classes without names: labels must be 0, 1, 2, ..."""
    present = sorted(set(labels.tolist()))
    if present != list(range(len(present))):
        missing = next(number for number in range(len(present) + 1) if number not in present)
        example = ", ".join(f"{label}: 'name'" for label in present[:3])
        raise DatasetError(
            f"labels must be 0, 1, 2, ... without gaps, got {', '.join(map(str, present[:6]))}{', ...' if len(present) > 6 else ''}: "
            f"{missing} has no picture; name the classes that there are: class_names={{{example}{', ...' if len(present) > 3 else ''}}}"
        )
    return {label: f"class {label}" for label in present}


def _checked(labels: Tensor, names: dict[int, str]) -> Tensor:
    """Labels as positions in ``names``: two classes or more, each with enough pictures."""
    counts = Counter(labels.tolist())
    unknown = [label for label in counts if label not in names]
    if unknown:
        raise DatasetError(
            f"label {unknown[0]} has no name: class_names has those of {', '.join(map(str, list(names)[:6]))}"
        )
    if len(names) < 2:
        raise DatasetError(
            f"a classifier needs two classes or more, got {len(names)} ({', '.join(names.values())}); expected a folder for each "
            "class, root/<class>/<picture>"
        )
    few = [(name, counts[label]) for label, name in names.items() if counts[label] < MIN_PICTURES]
    if few:
        listed = ", ".join(f"{name!r} ({count})" for name, count in few[:4])
        raise DatasetError(
            f"every class needs {MIN_PICTURES} pictures or more that can be read, and 5 or more for a useful answer; too few: "
            f"{listed}{', ...' if len(few) > 4 else ''}; add pictures, or leave the class out"
        )
    place = {label: position for position, label in enumerate(names)}
    return torch.tensor([place[label] for label in labels.tolist()], device=labels.device)
