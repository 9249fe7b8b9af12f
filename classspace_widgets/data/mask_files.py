"""Masks that lie beside pictures: where people put them, and what such a file holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.pictures import open_picture, shown_name

MASKS = "masks"
MARK = "_mask"
SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
"""Of masks; JPEG blurs their edges."""
PICTURES = ("images", "pictures", "photos", "img", "JPEGImages")
"""Folders that hold pictures where a folder of masks stands beside them."""


def is_mask(path: Path) -> bool:
    """Whether a file is a picture's mask by its name: in a folder ``masks``, or ``photo_mask.png`` beside ``photo.jpg``."""
    if path.parent.name == MASKS:
        return True
    return path.stem.endswith(MARK) and any(
        other != path and other.stem == path.stem.removesuffix(MARK) for other in path.parent.glob(f"{_plain(path)}.*")
    )


def _plain(path: Path) -> str:
    """A stem for a search, with nothing in it that a search takes for a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path.stem.removesuffix(MARK))


def masks_of(root: Path, paths: Sequence[Path]) -> list[Path | None] | None:
    """The mask of each picture below a folder; None where no picture has one.

    Parameters
    ----------
    root : Path
    paths : sequence of Path
        Pictures below it.

    Returns
    -------
    list of Path or None
    """
    known: dict[Path, dict[str, Path]] = {}

    def files(folder: Path) -> dict[str, Path]:
        if folder not in known:
            found = sorted(folder.iterdir()) if folder.is_dir() else []
            known[folder] = {path.name: path for path in found if path.suffix.lower() in SUFFIXES}
        return known[folder]

    def mask(path: Path) -> Path | None:
        for folder, stem in _places(root, path):
            for suffix in SUFFIXES:
                found = files(folder).get(f"{stem}{suffix}")
                if found is not None and found != path:
                    return found
        return None

    masks = [mask(path) for path in paths]
    return masks if any(masks) else None


def _places(root: Path, path: Path) -> Iterator[tuple[Path, str]]:
    """Folders and stems by which a picture's mask may be found, the nearest first."""
    inner = path.parent.relative_to(root)
    yield path.parent, f"{path.stem}{MARK}"
    folders = [path.parent / MASKS, root / MASKS / inner, root.parent / f"{root.name}_masks" / inner]
    folders += [root.parent / MASKS / root.name / inner]
    if root.name in PICTURES:
        folders.append(root.parent / MASKS / inner)
    for folder in folders:
        yield folder, path.stem
        yield folder, f"{path.stem}{MARK}"


def mask_values(path: Path, _label: int = 0) -> np.ndarray[Any, Any]:
    """The numbers in a mask's file ``[height, width]``; grey that is saved as colours is one channel again."""
    path = Path(path).expanduser()
    values = np.asarray(open_picture(path.read_bytes(), shown_name(path.name)))
    if values.ndim == 3 and (values[..., :1] == values[..., :3]).all():
        values = values[..., 0]
    return values
