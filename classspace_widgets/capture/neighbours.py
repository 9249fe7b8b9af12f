"""Nearest states as a live kernel sends them to a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from classspace_widgets.files import readable
from classspace_widgets.snapshot.container import pack
from classspace_widgets.snapshot.source import Answer

if TYPE_CHECKING:
    from classspace_widgets.nearest import Neighbours
    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import PartMeta


def neighbours_answer(found: Neighbours) -> Answer:
    """What is said of each patch, and small pictures of them; see ``docs/snapshot_format.md``."""
    files = found.thumbnails()
    meta: PartMeta = {"kind": "part", "classes": {"kept": []}}
    arrays: dict[str, Array] = {
        "picture_bytes": np.frombuffer(b"".join(files), np.uint8),
        "picture_ends": np.cumsum([len(file) for file in files]).astype(np.uint32),
    }
    patches = [
        {
            "cosine": round(float(row["cosine"]), 4),
            "picture": int(row["picture"]),
            "name": readable(row["name"]),
            "row": int(row["row"]),
            "column": int(row["column"]),
            "label": readable(row["label"]),
            "answer": readable(row["answer"]),
        }
        for row in found.table.to_dict("records")
    ]
    about = {"token": found.token, "block": found.block, "grid": list(found.bank.grid)}
    return Answer({**about, "neighbours": patches}, pack(meta, arrays))
