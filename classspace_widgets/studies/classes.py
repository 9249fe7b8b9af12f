"""Do the data set's classes mean the model's classes? Checked by name, with help where they differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classspace_widgets.lookup import close_matches


class ClassMismatchError(ValueError):
    """Names of classes in the data set that the model does not have; the message offers the closest ones."""


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
        From a data set's class (name or number) to the model's (name or number), for those that names do not settle.
    model_ids : sequence of str
        WordNet ids of the model's classes, where it has any: data sets may call ImageNet's classes by them.

    Returns
    -------
    ndarray [classes of the data set], int64

    Raises
    ------
    ClassMismatchError
        With close matches, where a name is in neither the model nor ``class_map``, or is that of several of its classes.

    Examples
    --------
    >>> match_classes(["Felis catus", "dog"], ["dog", "cat"], class_map={"Felis catus": "cat"})
    array([1, 0])
    """
    exact: dict[str, int] = {}
    for i, name in enumerate(model_names):
        exact.setdefault(_plain(name), i)
    synonyms: dict[str, int] = {}
    for i, name in enumerate(model_names):
        for part in name.split(","):
            synonyms.setdefault(_plain(part), i)
    exact.update({_plain(wordnet): i for i, wordnet in enumerate(model_ids)})
    given = {str(k): v for k, v in (class_map or {}).items()}
    found, missing, unclear = [], [], []
    several = _several(model_names)
    heads = [_plain(name.split(",")[0]) for name in data_names]
    for i, name in enumerate(data_names):
        wanted = given.get(name, given.get(str(i)))
        if wanted is not None:
            found.append(_number(wanted, exact, synonyms, model_names))
            continue
        number = exact.get(_plain(name), synonyms.get(_plain(name), synonyms.get(heads[i], -1)))
        same = several.get(heads[i], ())
        if same and f"{heads[i]} (2)" not in heads:
            # A data set with both of ImageNet's cranes has them in its order; one with a single crane must say which.
            if heads.count(heads[i]) == len(same):
                number = same[heads[:i].count(heads[i])]
            else:
                unclear.append((name, same))
        found.append(number)
        if number < 0:
            missing.append(name)
    if missing:
        raise ClassMismatchError(_help(missing, len(data_names), model_names))
    if unclear:
        name, same = unclear[0]
        raise ClassMismatchError(
            f"the model has {len(same)} classes called {name!r}, the data set has another number of them: "
            f"pass class_map={{{name!r}: {' or '.join(str(c) for c in same)}}}"
        )
    return np.asarray(found, dtype=np.int64)


def class_table(
    dataset: Any, model_names: Sequence[str], class_map: Mapping[Any, Any] | None, model_ids: Sequence[str] = ()
) -> Any:
    """Model class for every class of the data set as an array, or None where labels are the model's class numbers."""
    names = getattr(dataset, "class_names", None) or getattr(dataset, "classes", None) or ()
    # torchvision's ImageNet gives every class as a tuple of its names.
    listed = names if isinstance(names, (list, tuple)) else ()
    names = [", ".join(n) if isinstance(n, tuple) else str(n) for n in listed]
    unnamed = all(name == f"class {i}" for i, name in enumerate(model_names))
    if not names and class_map:
        return {int(k): int(v) for k, v in class_map.items()}
    if not names or (unnamed and not class_map and len(names) == len(model_names)):
        return None
    if unnamed and not class_map:
        raise ClassMismatchError(
            f"the data set names {len(names)} classes and the model has {len(model_names)} without names, so they "
            "cannot be matched; give ClassSpace(class_names=[...]), or class_map={data set class: model class number}"
        )
    return match_classes(names, model_names, class_map=class_map, model_ids=model_ids)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _several(model_names: Sequence[str]) -> dict[str, list[int]]:
    """Classes that share a name but for the number behind it (``"crane"``, ``"crane (2)"``), by the name."""
    known = set(model_names)
    found: dict[str, list[int]] = {}
    for i, name in enumerate(model_names):
        plain = re.sub(r" \(\d+\)$", "", name)
        found.setdefault(_plain(plain if plain in known else name), []).append(i)
    return {name: places for name, places in found.items() if len(places) > 1}


def _number(wanted: Any, exact: dict[str, int], synonyms: dict[str, int], model_names: Sequence[str]) -> int:
    n_classes = len(model_names)
    if isinstance(wanted, str):
        number = exact.get(_plain(wanted), synonyms.get(_plain(wanted), -1))
        if number < 0:
            raise ClassMismatchError(
                f"class_map leads to {wanted!r}, which is no class of the model{close_matches(wanted, model_names)}"
            )
        return number
    if not 0 <= int(wanted) < n_classes:
        raise ClassMismatchError(f"class_map leads to class {wanted}, but the model has classes 0..{n_classes - 1}")
    return int(wanted)


def _help(missing: list[str], total: int, model_names: Sequence[str]) -> str:
    known = {_plain(part): part.strip() for n in model_names for part in (n, *n.split(","))}
    lines = []
    for name in missing[:5]:
        close = difflib.get_close_matches(_plain(name), list(known), n=3, cutoff=0.6)
        offer = " or ".join(repr(known[c]) for c in close)
        lines.append(f"{name!r}" + (f" (close: {offer})" if offer else ""))
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        f"{len(missing)} of the data set's {total} classes are not among the model's {len(model_names)}: "
        f"{', '.join(lines)}{more}; pass class_map={{{missing[0]!r}: <model class name or number>, ...}}"
    )
