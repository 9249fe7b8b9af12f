"""`StateBank`: states of patches of many pictures, with small pictures of them, in bounded memory; and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.files import refusing, replacing
from classspace_widgets.tensor_files import header_of, read_tensor_file
from classspace_widgets.validate import Fields, below, shaped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from classspace_widgets.snapshot.container import Array

VERSION = 1


@dataclass(frozen=True, eq=False)
class StateBank:
    """States of image tokens of many pictures, at the residual stream of some blocks.

    Made by `state_bank` and `StateBank.load`. Pictures are numbered 0..M-1, the states kept of each block 0..n-1; all blocks
    have the states of the same patches.

    Attributes
    ----------
    states : ndarray [L', n, D], float16
        Unit vectors: the residual stream's directions.
    lengths : ndarray [L', n], float32
        Their lengths.
    pictures, tokens : ndarray [n], int32
        Picture and token of every state; image tokens follow the prefix tokens.
    labels : ndarray [M], int32
        Class of each picture; -1 where it is not known.
    answers : ndarray [M], int32
        The model's own answers.
    marks : ndarray [M], uint64
        A hash of what the model saw of each picture, by which `neighbours` leaves out the picture that is asked about.
    picture_bytes, picture_ends : ndarray, uint8 and uint32 [M]
        Small pictures as WebP files in one run of bytes, and where each ends.
    blocks : tuple of L' int
    grid : tuple of int
    prefix : tuple of str
    names, class_names : tuple of str
        Of the pictures and of the classes.
    model_name, fingerprint : str
        The model, and a hash of its weights.
    """

    states: Array = field(repr=False)
    lengths: Array = field(repr=False)
    pictures: Array = field(repr=False)
    tokens: Array = field(repr=False)
    labels: Array = field(repr=False)
    answers: Array = field(repr=False)
    marks: Array = field(repr=False)
    picture_bytes: Array = field(repr=False)
    picture_ends: Array = field(repr=False)
    blocks: tuple[int, ...]
    grid: tuple[int, int]
    prefix: tuple[str, ...]
    names: tuple[str, ...] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    model_name: str
    fingerprint: str

    def __repr__(self) -> str:
        return (
            f"StateBank({self.model_name}: {len(self.pictures)} patches of {self.n_pictures} pictures at "
            f"{len(self.blocks)} blocks, {self.nbytes / 1e6:.1f} MB)"
        )

    @property
    def n_pictures(self) -> int:
        """Number of pictures M."""
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    def thumbnail(self, picture: int) -> bytes:
        """A picture as a small WebP file."""
        ends = self.picture_ends
        start = int(ends[picture - 1]) if picture else 0
        return bytes(self.picture_bytes[start : int(ends[picture])])

    def at(self, block: int) -> int:
        """Place of a block among those that are kept; raises for another."""
        if block not in self.blocks:
            raise ValueError(
                f"the bank has the states of blocks {list(self.blocks)}, not of block {block}; build one with it: "
                f"state_bank(space, pictures, blocks=[{block}])"
            )
        return self.blocks.index(block)

    def check(self, class_names: Sequence[str], prefix: Sequence[str], grid: Sequence[int], fingerprint: str) -> None:
        """Raise `ValueError` where the bank is of another model, of other weights or of another grid."""
        mine = (self.class_names, self.prefix, self.grid, self.fingerprint)
        theirs = (tuple(class_names), tuple(prefix), tuple(grid), fingerprint or self.fingerprint)
        words = ("classes", "prefix tokens", "grid", "weights")
        for word, own, other in zip(words, mine, theirs, strict=True):
            if own != other:
                short = ("", "") if word == "classes" else (f" {own}", f" {other}")
                raise ValueError(
                    f"the bank was built with {self.model_name or 'another model'}, of the {word}{short[0]}; this model has "
                    f"others{short[1]}; build one: state_bank(space, pictures)"
                )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the bank to a safetensors file, replaced whole; nothing in it is ever unpickled.

        Parameters
        ----------
        path : path
        """
        from safetensors.numpy import save_file

        meta: dict[str, Any] = {name: getattr(self, name) for name in (*_LISTS, *_TEXTS)}
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        with replacing(path) as place:
            save_file(arrays, place, metadata=header_of("bank", VERSION, json.dumps(meta)))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> StateBank:
        """Read a bank that `save` wrote.

        Parameters
        ----------
        path : path

        Returns
        -------
        StateBank

        Raises
        ------
        FileNotFoundError, ValueError
            For a file that is not there, is damaged, is no bank, or is of a newer version.
        """
        meta, arrays = read_tensor_file(path, "bank", VERSION, kind="state bank", writer="bank.save", framework="np")
        with refusing(ValueError, f"{Path(path).name} is a damaged state bank"):
            return _bank(meta, arrays)


_ARRAYS = (
    "states",
    "lengths",
    "pictures",
    "tokens",
    "labels",
    "answers",
    "marks",
    "picture_bytes",
    "picture_ends",
)
_LISTS = ("blocks", "grid", "prefix", "names", "class_names")
_TEXTS = ("model_name", "fingerprint")


def _bank(meta: Fields, arrays: dict[str, Array]) -> StateBank:
    """A bank from meta data and arrays, once they are known to fit one another."""
    blocks, grid, prefix = meta.wholes("blocks", 0), meta.wholes("grid", 1), meta.texts("prefix")
    if len(grid) != 2:
        raise ValueError(f"grid must be two numbers, got {grid}")
    count = len(meta.texts("names"))
    n = len(shaped(arrays, "pictures", (None,), "i"))
    shaped(arrays, "states", (len(blocks), n, None), "f")
    shaped(arrays, "lengths", (len(blocks), n), "f")
    below(arrays["pictures"], "pictures", count)
    below(shaped(arrays, "tokens", (n,), "i"), "tokens", len(prefix) + grid[0] * grid[1])
    for name in ("labels", "answers"):
        below(shaped(arrays, name, (count,), "i"), name, len(meta.texts("class_names")), missing=-1)
    shaped(arrays, "marks", (count,), "u")
    ends = shaped(arrays, "picture_ends", (count,), "u").astype(np.int64)
    size = len(shaped(arrays, "picture_bytes", (None,), "u"))
    if count and ((np.diff(ends, prepend=0) < 0).any() or ends[-1] != size):
        raise ValueError(f"the ends of its {count} pictures do not divide {size} bytes")
    return StateBank(
        **{name: arrays[name] for name in _ARRAYS},
        blocks=tuple(blocks),
        grid=(grid[0], grid[1]),
        prefix=tuple(prefix),
        names=tuple(meta.texts("names")),
        class_names=tuple(meta.texts("class_names")),
        model_name=meta.text("model_name"),
        fingerprint=meta.text("fingerprint"),
    )
