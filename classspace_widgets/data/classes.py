"""Match the data set's classes with the model's by name, with suggestions where they differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from classspace_widgets.data.sets import feature_names, parts_of
from classspace_widgets.lookup import close_matches, composed
from classspace_widgets.masks import DatasetError


class ClassMismatchError(DatasetError):
    """The data set has class names that the model does not have; the message suggests the closest ones."""


def match_classes(
    data_names: Sequence[str],
    model_names: Sequence[str],
    *,
    class_map: Mapping[Any, Any] | None = None,
    model_ids: Sequence[str] = (),
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The model's class for every class of the data set.

    Parameters
    ----------
    data_names, model_names : sequence of str
    class_map : mapping, optional
        From a class of the data set (name or number) to one of the model (name or number), where the names do not match.
    model_ids : sequence of str
        WordNet ids of the model's classes, if known: data sets may use them as names of ImageNet's classes.

    Returns
    -------
    ndarray [classes of the data set], int64

    Raises
    ------
    ClassMismatchError
        For a name that is in neither the model nor ``class_map`` (the message lists close matches), or that several of the
        model's classes have.

    Examples
    --------
    >>> match_classes(["Felis catus", "dog"], ["dog", "cat"], class_map={"Felis catus": "cat"})
    array([1, 0])
    """
    exact, synonyms = _spellings(model_names, model_ids)
    given = {composed(str(k)): v for k, v in (class_map or {}).items()}
    found, missing, unclear = [], [], []
    homonyms = _homonyms(model_names)
    spelled = {composed(name): i for i, name in enumerate(model_names)}
    heads = [_normalised(name.split(",")[0]) for name in data_names]
    for i, name in enumerate(data_names):
        wanted = given.get(composed(name), given.get(str(i)))
        if wanted is not None:
            found.append(_number(wanted, exact, synonyms, model_names))
            continue
        number = exact.get(_normalised(name), synonyms.get(_normalised(name), synonyms.get(heads[i], -1)))
        same = homonyms.get(heads[i], ())
        if same and f"{heads[i]} (2)" not in heads:
            # ImageNet has two classes called crane. A data set with both has them in ImageNet's order; one with a single
            # crane must say which of them it is.
            alike = [composed(other) for other, head in zip(data_names, heads, strict=True) if head == heads[i]]
            if len(set(alike)) == len(same) and set(alike) <= set(spelled):
                number = spelled[composed(name)]  # "Polish" and "polish"
            elif len(alike) == len(same):
                number = same[heads[:i].count(heads[i])]
            else:
                unclear.append((name, same))
        found.append(number)
        if number < 0:
            missing.append(name)
    if missing:
        raise ClassMismatchError(_missing_message(missing, len(data_names), model_names))
    if unclear:
        name, same = unclear[0]
        raise ClassMismatchError(
            f"the model has {len(same)} classes called {name!r}, the data set has a different number of them: "
            f"pass class_map={{{name!r}: {' or '.join(str(c) for c in same)}}}"
        )
    return np.asarray(found, dtype=np.int64)


def class_table(
    dataset: Any, model_names: Sequence[str], class_map: Mapping[Any, Any] | None, model_ids: Sequence[str] = ()
) -> Any:
    """Model class for every class of the data set as an array, or None where labels are the model's class numbers.

    A dict if the data set does not number its classes 0, 1, 2, ...
    """
    numbered = label_names(dataset)
    names = list(numbered.values())
    in_order = list(numbered) == list(range(len(names)))
    unnamed = all(name == f"class {i}" for i, name in enumerate(model_names))
    if not names and class_map:
        exact, synonyms = _spellings(model_names, model_ids)
        return {_label_in(k): _number(v, exact, synonyms, model_names) for k, v in class_map.items()}
    if not names or (unnamed and not class_map and in_order and len(names) == len(model_names)):
        return None
    if unnamed and not class_map:
        raise ClassMismatchError(
            f"the data set names {len(names)} classes and the model has {len(model_names)} without names, so they "
            "cannot be matched; give ClassSpace(class_names=[...]), or class_map={data set class: model class number}"
        )
    if in_order:
        return match_classes(names, model_names, class_map=class_map, model_ids=model_ids)
    # Labels are not 0, 1, 2, ...: from here on, classes are matched by name.
    by_name = {numbered.get(int(k), k) if str(k).isdigit() else k: v for k, v in (class_map or {}).items()}
    found = match_classes(names, model_names, class_map=by_name, model_ids=model_ids)
    return dict(zip(numbered, found.tolist(), strict=True))


def label_names(dataset: Any) -> dict[int, str]:
    """Names of a data set's classes by label; empty if it has none.

    The search covers ``class_names``, ``classes`` and ``class_to_idx`` of the data set, the features of a Hugging Face data
    set, and then the data sets inside it, as in ``Subset``, ``random_split`` and ``ConcatDataset`` of `torch.utils.data`,
    also nested.

    Parameters
    ----------
    dataset : Any
        Names may be a list, tuple, array or pandas Index in the order of the labels, or a mapping such as ``{0: "cat"}`` or
        ``{"cat": 0}``.

    Returns
    -------
    dict of int to str
        In the order of the labels.

    Raises
    ------
    DatasetError
        If joined data sets have different names for the same labels, or if the names have no order.

    Examples
    --------
    >>> from torch.utils.data import ConcatDataset, Subset
    >>> from classspace_widgets.data.sets import ArrayDataset
    >>> data = ArrayDataset(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], ("cat", "dog"))
    >>> label_names(ConcatDataset([data, Subset(data, [1])]))
    {0: 'cat', 1: 'dog'}
    """
    for attribute in ("class_names", "classes", "class_to_idx"):
        names = _numbered(getattr(dataset, attribute, None), attribute)
        if names:
            return names
    features = feature_names(dataset)
    if features:
        return dict(enumerate(features))
    known = [label_names(part) for part in parts_of(dataset)]
    for other in known:
        if other != known[0]:
            raise DatasetError(
                f"joined data sets do not call their labels by the same names: {_excerpt(known[0])} and "
                f"{_excerpt(other)}; measure them one by one, or give the joined data set `classes` and labels in that order"
            )
    return known[0] if known else {}


def _excerpt(names: dict[int, str]) -> str:
    listed = ", ".join(f"{label}: {name!r}" for label, name in list(names.items())[:3])
    return f"{{{listed}{', ...' if len(names) > 3 else ''}}}" if names else "no names"


def _numbered(names: Any, attribute: str) -> dict[int, str]:
    """Class names in any of the accepted forms, as a dict by label."""
    if names is None or isinstance(names, int) or callable(names):
        return {}  # a number of classes, or a method
    names = getattr(names, "names", None) or names if hasattr(names, "str2int") else names
    if isinstance(names, (str, bytes, set, frozenset)) or not isinstance(names, Iterable):
        raise DatasetError(
            f"a data set's `{attribute}` must be the names of its classes in the order of its labels, or {{0: name, ...}}, "
            f"got {type(names).__name__}" + (", which has no order" if isinstance(names, (set, frozenset)) else "")
        )
    if hasattr(names, "items"):  # a mapping, or a pandas Series
        pairs = [(str(key), value) for key, value in names.items()]
        if not all(key.isdigit() for key, _ in pairs):
            pairs = [(str(value), key) for key, value in pairs]
        if not all(number.isdigit() for number, _ in pairs) or len({int(number) for number, _ in pairs}) < len(pairs):
            raise DatasetError(
                f"a data set's `{attribute}` must give every class one number and one name, got {names!r:.200}"
            )
        return dict(sorted((int(number), _name(name)) for number, name in pairs))
    return {i: _name(name) for i, name in enumerate(names)}


def _name(name: Any) -> str:
    # torchvision's ImageNet gives every class as a tuple of its names.
    return ", ".join(map(str, name)) if isinstance(name, (tuple, list)) else str(name)


def _label_in(key: Any) -> int:
    """A key of ``class_map`` for a data set without class names: it must be a label."""
    if not str(key).isdigit():
        raise ClassMismatchError(
            f"the data set names no classes, so the keys of class_map must be its labels (numbers), got {key!r}"
        )
    return int(key)


def _spellings(model_names: Sequence[str], model_ids: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Model classes by normalised name and WordNet id, and by each synonym."""
    exact: dict[str, int] = {}
    synonyms: dict[str, int] = {}
    for i, name in enumerate(model_names):
        exact.setdefault(_normalised(name), i)
        for part in name.split(","):
            synonyms.setdefault(_normalised(part), i)
    return exact | {_normalised(wordnet): i for i, wordnet in enumerate(model_ids)}, synonyms


def _normalised(name: str) -> str:
    # Composed again at the end: casefold may decompose letters.
    return " ".join(composed(composed(name).replace("_", " ").replace("-", " ").casefold()).split())


def _homonyms(model_names: Sequence[str]) -> dict[str, list[int]]:
    """Classes whose names differ only in a number at the end (``"crane"``, ``"crane (2)"``), by the shared name."""
    known = set(model_names)
    found: dict[str, list[int]] = {}
    for i, name in enumerate(model_names):
        base = re.sub(r" \(\d+\)$", "", name)
        found.setdefault(_normalised(base if base in known else name), []).append(i)
    return {name: places for name, places in found.items() if len(places) > 1}


def _number(wanted: Any, exact: dict[str, int], synonyms: dict[str, int], model_names: Sequence[str]) -> int:
    n_classes = len(model_names)
    if isinstance(wanted, str):
        number = exact.get(_normalised(wanted), synonyms.get(_normalised(wanted), -1))
        if number < 0:
            raise ClassMismatchError(
                f"class_map leads to {wanted!r}, which is not a class of the model{close_matches(wanted, model_names)}"
            )
        return number
    if not 0 <= int(wanted) < n_classes:
        raise ClassMismatchError(f"class_map leads to class {wanted}, but the model has classes 0..{n_classes - 1}")
    return int(wanted)


def _missing_message(missing: list[str], total: int, model_names: Sequence[str]) -> str:
    known = {_normalised(part): part.strip() for n in model_names for part in (n, *n.split(","))}
    lines = []
    for name in missing[:5]:
        close = difflib.get_close_matches(_normalised(name), list(known), n=3, cutoff=0.6)
        suggestion = " or ".join(repr(known[c]) for c in close)
        lines.append(f"{name!r}" + (f" (close: {suggestion})" if suggestion else ""))
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        f"{len(missing)} of the data set's {total} classes are not among the model's {len(model_names)}: "
        f"{', '.join(lines)}{more}; pass class_map={{{missing[0]!r}: <model class name or number>, ...}}"
    )
