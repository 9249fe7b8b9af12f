"""Data sets by name, as on the command line."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.data.sets import ArrayDataset, as_dataset
from classspace_widgets.masks import DatasetError


def named_dataset(name: str) -> Any:
    """A data set from a short description.

    Parameters
    ----------
    name : str
        A folder (``<class>/<picture>``, or the layout of ImageNet-S), an ``.npz`` file of arrays (images, labels, and
        optionally masks and class_names), ``hf:NAME[:SPLIT]``, or ``scenes[:N[:SEED]]``.

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        If there is no such data set, or the library that reads it is missing.
    """
    kind, _, rest = name.partition(":")
    if kind == "scenes":
        return _scenes(name, rest)
    if kind == "hf":
        return _hugging_face(rest)
    path = Path(name).expanduser()
    if path.is_file():
        return _arrays(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no data set {name!r}: expected a folder, an .npz file, hf:NAME[:SPLIT] or scenes[:N[:SEED]]"
        )
    return as_dataset(path)


def _scenes(name: str, rest: str) -> Any:
    from classspace_widgets.scenes import ScenesDataset

    numbers = rest.split(":") if rest else []
    if len(numbers) > 2 or not all(n.isdigit() for n in numbers) or (numbers and int(numbers[0]) < 1):
        raise ValueError(f"expected scenes, scenes:N or scenes:N:SEED with N at least 1, got {name!r}")
    given = [int(n) for n in numbers]
    return ScenesDataset(given[0] if given else 500, seed=given[1] if len(given) > 1 else 5)


def _arrays(path: Path) -> ArrayDataset:
    if path.suffix != ".npz":
        raise ValueError(f"{path} is a file; expected an .npz file of arrays, or a folder of pictures")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            missing = [part for part in ("images", "labels") if part not in stored]
            if missing:
                raise DatasetError(f"{path} has no array {' or '.join(missing)}; it contains {', '.join(stored.files)}")
            arrays = {part: _array(stored, part, path) for part in ("images", "labels", "masks", "class_names")}
    except DatasetError:
        raise
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path} is not a complete .npz file of arrays: {type(error).__name__}") from error
    names = arrays.pop("class_names")
    class_names = () if names is None else tuple(str(n) for n in names)
    return ArrayDataset(**arrays, class_names=class_names, name=path.stem)


def _array(stored: Any, part: str, path: Path) -> Any:
    if part not in stored:
        return None
    try:
        return stored[part]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DatasetError(
            f"{path}: {part} is an array of objects, which is not read because reading it would run code; save an array of one "
            "type (pictures of different sizes as files, one folder per class; names as np.array(names, dtype=str))"
        ) from None


def _hugging_face(rest: str) -> Any:
    name, _, split = rest.partition(":")
    if not name:
        raise ValueError("expected hf:NAME or hf:NAME:SPLIT")
    try:
        import datasets
    except ImportError:
        raise ImportError(
            "hf: needs the library datasets of Hugging Face; install it with: pip install datasets"
        ) from None
    if Path(name).is_dir():
        loaded = datasets.load_from_disk(name)
        loaded = loaded[split] if split else loaded
    else:
        loaded = datasets.load_dataset(name, split=split or "validation")
    return as_dataset(loaded)
