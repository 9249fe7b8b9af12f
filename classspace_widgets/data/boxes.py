"""Class folders with a table of boxes: `root/<class>/<picture>` and `root/boxes.csv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classspace_widgets.data.coco import OutlinedPictures
from classspace_widgets.data.sets import existing_folder, image_folder
from classspace_widgets.masks import DatasetError
from classspace_widgets.pictures import shown_name

BOXES = "boxes.csv"
EDGES = ("left", "top", "right", "bottom")


def box_folder(
    root: str | Path, *, boxes: str | Path | None = None, classes: Sequence[str] | None = None
) -> OutlinedPictures:
    """Pictures in one folder per class, with the objects' boxes in one table; masks are the insides of the boxes.

    Parameters
    ----------
    root : path
        Folder of ``<class>/<picture>``.
    boxes : path, optional
        CSV file with a header and the columns ``file`` (``<class>/<picture>``), ``left``, ``top``, ``right`` and ``bottom``: the
        first and last column and row of pixels inside, from 0. A picture may have several rows. By default
        ``root/boxes.csv``.
    classes : sequence of str, optional
        Folders to read, in this order; by default all, sorted.

    Returns
    -------
    OutlinedPictures
        Pictures that the table does not name have no mask.

    Raises
    ------
    DatasetError
        If there is no such folder, table or column, or a row that is no box, or a class that has no folder.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cat").mkdir()
    ...     Image.new("RGB", (4, 2)).save(f"{folder}/cat/1.png")
    ...     _ = Path(folder, "boxes.csv").write_text("file,left,top,right,bottom\\ncat/1.png,1,0,2,0\\n")
    ...     box_folder(folder)[0][2]
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]], dtype=uint8)
    """
    root = existing_folder(root)
    found = image_folder(root)
    table = Path(boxes).expanduser() if boxes else root / BOXES
    if not table.is_file():
        raise DatasetError(f"there is no table of boxes {table}; pass boxes= with its path")
    known = _rows(table)
    names = found.class_names if classes is None else tuple(classes)
    missing = [name for name in names if name not in found.class_names]
    if missing:
        raise DatasetError(f"{root} has no folder with pictures called {missing[0]!r}")
    wanted = {name: number for number, name in enumerate(names)}
    chosen = [i for i, label in enumerate(found.labels) if found.class_names[label] in wanted]
    if not chosen:
        raise DatasetError("classes is empty: name the folders to read, or leave it out for all")
    paths = [found.paths[i] for i in chosen]
    return OutlinedPictures(
        paths,
        [wanted[found.class_names[found.labels[i]]] for i in chosen],
        names,
        [known.get(path.relative_to(root).as_posix(), []) for path in paths],
        name=shown_name(root.name),
    )


def _rows(table: Path) -> dict[str, list[tuple[Any, int]]]:
    """Outlines of every picture's boxes, by its name in the table."""
    found: dict[str, list[tuple[Any, int]]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        missing = [name for name in ("file", *EDGES) if name not in columns]
        if missing:
            raise DatasetError(f"{table} must have the columns file, {', '.join(EDGES)}; got {', '.join(columns)}")
        for row in rows:
            found.setdefault(row["file"], []).append((_outline(row, f"{table}, line {rows.line_num}"), 1))
    return found


def _outline(row: dict[str, str], where: str) -> list[list[int]]:
    """The corners of a box, as one polygon; its edges are inside."""
    try:
        left, top, right, bottom = (int(row[name]) for name in EDGES)
    except (TypeError, ValueError):
        left, top, right, bottom = 0, 0, -1, -1
    if not (0 <= left <= right and 0 <= top <= bottom):
        given = ", ".join(f"{name}={row[name]}" for name in EDGES)
        raise DatasetError(
            f"{where}: a box needs whole numbers, 0 <= left <= right and 0 <= top <= bottom, got {given}"
        )
    return [[left, top, right, top, right, bottom, left, bottom]]
