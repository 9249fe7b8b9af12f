"""Data that is read one picture after the other, without a length: shards, each of which can be read again from its start."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from classspace_widgets.data.sets import IMAGE_SUFFIXES, feature_names
from classspace_widgets.masks import DatasetError
from classspace_widgets.pictures import open_picture, shown_name

SHARD = 1_000_000_000
"""Positions that each shard has: picture 17 of shard 3 is picture 3,000,000,017 of the data."""


@dataclass(frozen=True)
class Shards:
    """Pictures in shards, such as tar files, for `run_study`: no length is known, and a run goes on by shard.

    Parameters
    ----------
    names : sequence of str
        What the shards are called: paths, addresses or numbers.
    read : callable
        From a shard's name to its items (image, label[, mask]), or mappings with these columns, always the same ones in the same
        order. To be sent to the workers of a cluster it must be a function of a module.
    class_names : sequence of str
        Names of the classes that labels number; empty where these are the model's.
    name : str
        What the data is called in results.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import run_study
    >>> scenes = ScenesDataset(8, seed=2)
    >>> data = Shards(["even", "odd"], lambda name: (scenes[i] for i in range(name == "odd", 8, 2)), scenes.classes)
    >>> results = run_study(ClassSpace.bundled(), data, "accuracy", progress=False)
    >>> results.provenance["pictures"]
    8
    """

    names: Sequence[str]
    read: Callable[[str], Iterable[Any]]
    class_names: Sequence[str] = ()
    name: str = "shards"

    def __post_init__(self) -> None:
        """Check the names."""
        if not len(self.names):
            raise DatasetError("there must be at least one shard, got none")
        twice = next((name for i, name in enumerate(self.names) if name in self.names[:i]), None)
        if twice is not None:
            raise DatasetError(f"the shard {twice} is listed twice, so its pictures would be counted twice")

    @property
    def fingerprint(self) -> str:
        """What distinguishes these shards from others, without reading them."""
        return hashlib.sha256(json.dumps([list(self.names), list(self.class_names)]).encode()).hexdigest()[:16]


@runtime_checkable
class _HuggingFaceStream(Protocol):
    """A streaming data set of Hugging Face."""

    num_shards: int

    def shard(self, num_shards: int, index: int) -> Iterable[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


def as_shards(source: Any) -> Shards | None:
    """The shards of a data set that is iterated over: of Hugging Face, or one for any other; None where items have numbers.

    Raises
    ------
    TypeError
        For an iterator, which can only be read once.
    """
    if isinstance(source, Shards):
        return source
    # A torch IterableDataset has a __getitem__, which only raises.
    numbered = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    if numbered or isinstance(source, (str, Path)) or not hasattr(source, "__iter__") or hasattr(source, "dataset"):
        return None
    if hasattr(source, "__next__"):
        raise TypeError(
            "a data set needs a length, and items (image, label[, mask]) by number, or can at least be read again from its "
            f"start, which a {type(source).__name__} cannot; pass "
            'Shards(["all"], function), where function("all") returns a new iterator, or a list of the items'
        )
    names = getattr(source, "class_names", None) or getattr(source, "classes", None) or feature_names(source)
    title = str(getattr(source, "name", "") or type(source).__name__)
    if isinstance(source, _HuggingFaceStream) and source.num_shards > 1:
        count = source.num_shards
        return Shards([f"{i + 1} of {count}" for i in range(count)], partial(_numbered, source), tuple(names), title)
    return Shards(["all"], partial(_whole, source), tuple(names), title)


def _numbered(source: _HuggingFaceStream, name: str) -> Iterable[Any]:
    number, _, count = name.partition(" of ")
    return source.shard(num_shards=int(count), index=int(number) - 1)


def _whole(source: Iterable[Any], _name: str) -> Iterable[Any]:
    return source


def tar_shards(paths: Iterable[str | Path], *, class_names: Sequence[str] = (), name: str = "tar files") -> Shards:
    """Tar files in the layout of WebDataset: files of one picture have one name, and an ending each.

    Parameters
    ----------
    paths : iterable of path
        Such as ``sorted(Path("imagenet").glob("*.tar"))``.
    class_names : sequence of str
        Names of the classes, in the order of their numbers; empty where labels are the model's class numbers.
    name : str
        What the data is called in results.

    Returns
    -------
    Shards
        The label is the number in ``.cls``, or ``"label"`` in ``.json``; a mask is the values in ``.mask.png``: 1 inside the
        object, 0 outside, 255 for pixels to ignore.

    Examples
    --------
    >>> data = tar_shards(["imagenet-000.tar", "imagenet-001.tar"])  # doctest: +SKIP
    """
    return Shards([str(Path(path).expanduser()) for path in paths], _read_tar, tuple(class_names), name)


def _read_tar(path: str) -> Iterator[tuple[Any, Any, Any]]:
    """Items of a tar file, which is read from its start to its end."""
    key, parts = "", dict[str, bytes]()
    with tarfile.open(path, "r|*") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            folder, _, file = member.name.rpartition("/")
            stem, _, ending = file.partition(".")
            if f"{folder}/{stem}" != key:
                if parts:
                    yield _item(key, parts)
                key, parts = f"{folder}/{stem}", {}
            parts[f".{ending.lower()}"] = content.read()
    if parts:
        yield _item(key, parts)


def _item(key: str, parts: dict[str, bytes]) -> tuple[Any, Any, Any]:
    """Image, label and mask of one picture from the bytes of its files; a picture that is damaged is found so later."""
    import numpy as np

    image = next((data for ending, data in parts.items() if ending in IMAGE_SUFFIXES), None)
    if image is None:
        raise DatasetError(f"{shown_name(key)} has no picture among its files: {', '.join(parts)}")
    if ".cls" in parts:
        label: Any = int(parts[".cls"])
    elif ".json" in parts:
        label = json.loads(parts[".json"])["label"]
    else:
        raise DatasetError(f"{shown_name(key)} has no label: expected .cls or .json among {', '.join(parts)}")
    drawn = parts.get(".mask.png")
    return image, label, None if drawn is None else np.asarray(open_picture(drawn, f"{shown_name(key)}.mask.png"))
