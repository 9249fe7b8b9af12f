"""`MemoryAtlas`: every value vector of a model read as classes, and the patches that activate it most; torch-free."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from classspace_widgets.files import refusing
from classspace_widgets.lookup import class_index
from classspace_widgets.points import SUBLAYERS
from classspace_widgets.snapshot.check import NO_NEURON, check_atlas
from classspace_widgets.snapshot.container import Array, SnapshotError, load_container, pack, save_container, unpack

if TYPE_CHECKING:
    import pandas as pd

    from classspace_widgets.snapshot.meta import AtlasMeta

__all__ = ["MemoryAtlas"]

KIND = "memories"


@dataclass(frozen=True)
class MemoryAtlas:
    """What a `MemoryBrowser` shows. Neurons are numbered block by block, attention's before the MLP's.

    Made by `memory_atlas` and `MemoryAtlas.load`.

    Attributes
    ----------
    meta : AtlasMeta
        A dict: ``model`` (name, blocks), ``classes`` (names), ``widths`` (value vectors of attention and of the MLP, per block),
        ``grid`` and ``prefix`` of the tokens, ``pictures`` (count, names, labels).
    arrays : dict of str to ndarray
        ``top`` [n, k] classes of every neuron, best first, and ``top_cosine`` [n, k]; ``values`` [C, 2, m] neurons of
        every class in attention and MLP (4294967295 where there are fewer) and ``values_cosine`` [C, 2, m]. With
        pictures also ``patch`` [n, e] (picture * P + patch, best first), ``coefficient`` [n, e], and the pictures as
        one run of WebP files, ``picture_bytes``, that end at ``picture_ends`` [pictures].
    """

    meta: AtlasMeta
    arrays: dict[str, Array] = field(repr=False)

    def __repr__(self) -> str:
        pictures = self.meta["pictures"]["count"]
        return f"MemoryAtlas({self.meta['model']['name']}: {len(self.arrays['top'])} neurons, {pictures} pictures)"

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def class_names(self) -> list[str]:
        """Names of all C classes."""
        return list(self.meta["classes"]["names"])

    def place(self, neuron: int) -> tuple[int, str, int]:
        """Block (from 1), sublayer and value vector of a neuron."""
        if not 0 <= neuron < len(self.arrays["top"]):
            raise ValueError(f"neuron must be in 0..{len(self.arrays['top']) - 1}, got {neuron}")
        first, second = self.meta["widths"]
        block, rest = divmod(neuron, first + second)
        return block + 1, SUBLAYERS[int(rest >= first)], rest if rest < first else rest - first

    def neuron(self, block: int, sublayer: str, value: int) -> int:
        """Number of a value vector; the inverse of `place`."""
        if sublayer not in SUBLAYERS:
            raise ValueError(f"sublayer must be one of {SUBLAYERS}, got {sublayer!r}")
        widths, blocks = self.meta["widths"], self.meta["model"]["blocks"]
        which = SUBLAYERS.index(sublayer)
        if not 1 <= block <= blocks:
            raise ValueError(f"block must be in 1..{blocks}, got {block}")
        if not 0 <= value < widths[which]:
            raise ValueError(f"value must be in 0..{widths[which] - 1}, got {value}")
        return int((block - 1) * sum(widths) + which * widths[0] + value)

    def for_class(self, wanted: int | str) -> pd.DataFrame:
        """Neurons whose value vectors point most towards a class, by cosine.

        Returns
        -------
        DataFrame
            Columns ``block``, ``sublayer``, ``value``, ``cosine``; best first.
        """
        import pandas as pd

        c = class_index(self.class_names, wanted)
        numbers = self.arrays["values"][c].ravel()
        cosines = self.arrays["values_cosine"][c].astype(np.float32).ravel()
        kept = np.flatnonzero(numbers != np.uint32(NO_NEURON))
        kept = kept[np.argsort(-cosines[kept], kind="stable")]
        rows = [(*self.place(int(numbers[i])), float(cosines[i])) for i in kept]
        return pd.DataFrame(rows, columns=["block", "sublayer", "value", "cosine"])

    def pack(self) -> bytes:
        """The container's bytes, as they go to the browser."""
        return pack({"kind": KIND, **self.meta}, self.arrays)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> MemoryAtlas:
        """An atlas from container bytes; raises `SnapshotError` for anything else."""
        meta, arrays = unpack(data)
        if meta.get("kind") != KIND:
            raise SnapshotError(f"expected a memory atlas, got a container of kind {meta.get('kind')!r}")
        with refusing(SnapshotError, "damaged memory atlas"):
            check_atlas(meta, arrays)
        del meta["kind"]
        return cls(cast("AtlasMeta", meta), arrays)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one gzipped file; when writing fails, nothing is left behind."""
        return save_container(path, self.pack())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MemoryAtlas:
        """Open a file that `save` wrote; needs no torch. Raises `SnapshotError` for anything else."""
        with refusing(SnapshotError, f"{path} is not a memory atlas, or it is damaged", unchanged=(OSError,)):
            return cls.unpack(load_container(path, "memory atlas"))
