"""Find a thing by its name, and say what is close when there is none."""

from __future__ import annotations

import difflib
import operator
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


def close_matches(name: str, names: Sequence[str]) -> str:
    """``"; close matches: a, b"``, or nothing when nothing is close."""
    name = composed(name)
    folded = {composed(known).lower(): known for known in reversed(names)}
    found = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.5)
    found += [key for key in folded if name.lower() in key and key not in found][: 3 - len(found)]
    return f"; close matches: {', '.join(folded[key] for key in found)}" if found else ""


def composed(name: str) -> str:
    """A name with its accents composed (NFC): systems spell the same name differently, and no eye can tell.

    Examples
    --------
    >>> composed("cafe\\u0301") == "caf\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def as_plain(value: Any) -> Any:
    """A tensor, an array or a table's column as Python's own numbers and lists; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def items_of(value: Any) -> tuple[list[Any], bool]:
    """The items of a sequence, array or tensor, or the single item itself; and whether there was only that.

    Examples
    --------
    >>> items_of("fish"), items_of(range(2))
    ((['fish'], True), ([0, 1], False))
    """
    value = as_plain(value.reshape(-1) if getattr(value, "ndim", 0) else value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value], True
    return list(value), False


def whole_number(value: Any, what: str, low: int, high: int) -> int:
    """A whole number in ``low..high``; anything else raises, True and False too.

    Examples
    --------
    >>> whole_number(1.5, "block", 1, 12)
    Traceback (most recent call last):
    TypeError: block must be a whole number in 1..12, got 1.5
    """
    value = as_plain(value)
    number = _integer(value)
    if number is None:
        raise TypeError(f"{what} must be a whole number in {low}..{high}, got {value!r}")
    if not low <= number <= high:
        raise ValueError(f"{what} must be in {low}..{high}, got {number}")
    return number


def at_least(value: Any, what: str, low: int) -> int:
    """A whole number of at least ``low``; anything else raises."""
    number = _integer(value)
    if number is None:
        raise TypeError(f"{what} must be a whole number of at least {low}, got {value!r}")
    if number < low:
        raise ValueError(f"{what} must be at least {low}, got {number}")
    return number


def class_index(names: Sequence[str], wanted: Any) -> int:
    """Index of a class given by index or by name.

    Parameters
    ----------
    names : sequence of str
        Names of all C classes.
    wanted : int or str

    Raises
    ------
    ValueError
        For an unknown name (with close matches) or an index outside 0..C-1.
    TypeError
        For anything else.

    Examples
    --------
    >>> class_index(["fish", "boat"], "boat")
    1
    >>> class_index(["fish", "boat"], "bot")
    Traceback (most recent call last):
    ValueError: no class is called 'bot'; close matches: boat
    """
    if isinstance(wanted, str):
        if wanted in names:
            return list(names).index(wanted)
        same = [i for i, name in enumerate(names) if composed(name) == composed(wanted)]
        if same:
            return same[0]
        raise ValueError(f"no class is called {wanted!r}{close_matches(wanted, names)}")
    index = _integer(wanted)
    if index is None:
        raise TypeError(f"a class must be an index or a name, got {type(wanted).__name__}")
    if not 0 <= index < len(names):
        raise ValueError(f"class must be in 0..{len(names) - 1}, got {index}")
    return index


def chosen_classes(
    names: Sequence[str], classes: Any = None, *, labels: Any = None, images: int | None = None
) -> list[int] | list[list[int]] | None:
    """Classes as every reading takes them: the same ones of all images, or some of each image's own.

    Parameters
    ----------
    names : sequence of str
        Names of all C classes.
    classes : class, sequence of K, or [B, K]
        By index or name. ``K`` classes (a list, or an array or tensor of one dimension) are read of all images; ``[B, K]``
        (a list of lists, or two dimensions) are K of each image.
    labels : class, or sequence of B
        Instead of ``classes``: each image's own class; one class is that of all.
    images : int, optional
        B, where images may have classes of their own.

    Returns
    -------
    list of K int, or B lists of K, or None
        None where neither was given.

    Raises
    ------
    TypeError, ValueError
        For an unknown class, both or none of a kind, or another number of images.

    Examples
    --------
    >>> names = ("cat", "dog", "owl")
    >>> chosen_classes(names, ["owl", 0], images=2), chosen_classes(names, [["owl"], ["dog"]], images=2)
    ([2, 0], [[2], [1]])
    >>> chosen_classes(names, labels=["owl", "dog"], images=2)
    [[2], [1]]
    """
    if labels is not None:
        if classes is not None:
            raise ValueError(
                "give classes= (the same of all images, or [B, K]) or labels= (one of each image), not both"
            )
        return [[one] for one in own_classes(names, labels, images or 0)]
    if classes is None:
        return None
    listed, single = _as_lists(classes)
    if single or not any(isinstance(one, list) for one in listed):
        if not listed:
            raise ValueError("classes is empty: choose at least one")
        return [class_index(names, one) for one in listed]
    if images is None:
        raise ValueError(
            "here the same classes are read of all images, so classes must be one class or K of them, not [B, K]; give all "
            "that are wanted, and take each image's own from the result"
        )
    lengths = {len(one) if isinstance(one, list) else 0 for one in listed}
    if len(listed) != images or len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"classes of each image must have shape [B, K] with B={images}, got {len(listed)} rows of "
            f"{' or '.join(map(str, sorted(lengths)))}"
        )
    return [[class_index(names, one) for one in row] for row in listed]


def own_classes(names: Sequence[str], labels: Any, images: int) -> list[int]:
    """Each image's own class, ``[B]``: from B classes by index or name, or from one that is that of all.

    Examples
    --------
    >>> own_classes(("cat", "dog"), "dog", 3)
    [1, 1, 1]
    """
    listed, _ = _as_lists(labels)
    rows = [len(one) for one in listed if isinstance(one, list)]
    if rows:
        hint = "try labels.squeeze(1)" if set(rows) == {1} else "of one-hot or soft labels give labels.argmax(1)"
        raise ValueError(f"labels must be one class or B={images} of them, got {len(listed)} rows of {rows[0]}; {hint}")
    if len(listed) not in (1, images):
        raise ValueError(f"labels must be one class or B={images} of them, got {len(listed)}")
    found = [class_index(names, one) for one in listed]
    return found if len(found) == images else found * images


def _as_lists(classes: Any) -> tuple[list[Any], bool]:
    """Arrays, tensors and sequences as lists (of lists); and whether there was a single item."""
    classes = as_plain(classes)
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        return [classes], True
    listed = [as_plain(one) for one in classes]
    return [list(one) if isinstance(one, (list, tuple, range)) else one for one in listed], False


def _integer(value: Any) -> int | None:
    """A whole number as Python's own; None for anything else, True and False too."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
