"""`Snapshot`: the compact, torch-free arrays that views need of one picture's trace, and the readings in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from classspace_widgets.files import refusing
from classspace_widgets.points import Points
from classspace_widgets.snapshot.check import check_snapshot
from classspace_widgets.snapshot.container import Array, SnapshotError, load_container, pack, save_container, unpack
from classspace_widgets.snapshot.lenses import lens_array, lens_number, missing

if TYPE_CHECKING:
    from classspace_widgets.snapshot.meta import SnapshotMeta
    from classspace_widgets.snapshot.source import Source

__all__ = ["Snapshot"]

SCAN_LIMIT = 32_000_000
"""Bytes of logits of every class that are held at a time while ranks are counted; the result does not depend on it."""


@dataclass
class Snapshot:
    """One picture's trace, reduced to what the views need; opens where there is no torch.

    Axis letters: S stream points (embedding; then attention output, mid, MLP output, residual of every block),
    N increments (embedding; then attention and MLP of every block), T' tokens (with the pooled token of a mean-pooling
    model as the last), K classes kept.

    Made by `Trace.snapshot` and `Snapshot.load`.

    Attributes
    ----------
    meta : SnapshotMeta
        Model, tokens, classes, image, payload, exactness: a dict (documented in ``docs/snapshot_format.md``).
    arrays : dict of str to ndarray
        ``raw`` [K, N, T'], ``sigma`` [S, T'], ``offset`` [C], ``output_logits`` [C], ``image`` (file bytes), and what
        the payload mode adds.
    source : Source, optional
        The live kernel, which answers requests for what the snapshot does not carry; never saved, pickled or copied.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> snapshot = ClassSpace.bundled().trace(gallery()[0].picture).snapshot()
    >>> snapshot.ranks(snapshot.predicted[0]).shape  # S stream points, T' tokens
    (33, 145)
    >>> Snapshot.unpack(snapshot.pack()).class_names[:2]
    ['fish', 'boat']
    """

    meta: SnapshotMeta
    arrays: dict[str, Array]
    source: Source | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "source": None}

    def __repr__(self) -> str:
        model, tokens, classes = self.meta["model"], self.meta["tokens"], self.meta["classes"]
        answer = self.meta.get("answer")
        return (
            f"Snapshot({model['name']}: {model['blocks']} blocks, {tokens['count']} tokens, "
            f"{len(classes['kept'])} of {classes['count']} classes, {self.meta['payload']['mode']}, {self.nbytes / 1e6:.2f} MB"
            f"{'; unsure of its answer' * bool(answer and answer['unsure'])})"
        )

    def _repr_html_(self) -> str:
        from classspace_widgets.snapshot.still import as_html

        return as_html(self, repr(self))

    @property
    def answer(self) -> str:
        """The model's answer, and how sure it is, in words."""
        answer = self.meta.get("answer")
        return answer["text"] if answer else f"{self.class_names[self.predicted[0]]}."

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def class_names(self) -> list[str]:
        """Names of all C classes."""
        return list(self.meta["classes"]["names"])

    @property
    def n_blocks(self) -> int:
        """Number of blocks L."""
        return self.meta["model"]["blocks"]

    @property
    def points(self) -> Points:
        """The numbering of stream points and increments."""
        return Points(self.n_blocks, self.meta["model"]["layout"])

    @property
    def predicted(self) -> list[int]:
        """The model's own classes, best first."""
        order = np.argsort(-self.arrays["output_logits"], kind="stable")
        return [int(i) for i in order]

    def raw(self, class_index: int) -> Array:
        """Folded readings of the increments for a class, ``[N, T']`` float32; ``KeyError`` when it is not carried."""
        kept = self.meta["classes"]["kept"]
        if self.meta["payload"].get("ranks_only"):
            raise KeyError("this snapshot carries only ranks and top classes, no readings")
        if class_index in kept:
            return np.asarray(self.arrays["raw"][kept.index(class_index)])
        if "increments" in self.arrays:
            folded = self.arrays["embedding"][class_index].astype(np.float32) * self.meta.get("embedding_scale", 1.0)
            scale = self.arrays["increment_scale"][:, None]
            return np.asarray((self.arrays["increments"].astype(np.float32) @ folded) * scale, np.float32)
        raise KeyError(
            f"class {class_index} is not in this snapshot, which carries {len(kept)} classes; "
            f"take it again with trace.snapshot(classes=[{self.class_names[class_index]!r}]) or payload='increments'"
        )

    def stream_raw(self, class_index: int) -> Array:
        """Folded readings of every stream point for a class, ``[S, T']``."""
        return self._stream_points(self.raw(class_index))

    def _stream_points(self, raw: Array) -> Array:
        """Folded readings of stream points ``[S, ...]`` float64 from those of the increments ``[N, ...]``."""
        raw = raw.astype(np.float64)
        residual = raw.cumsum(axis=0)
        points = self.points
        return np.stack(
            [(residual if points.is_sum(name) else raw)[points.increment(name, block)] for block, name in points]
        )

    def logits(self, class_index: int, *, lens: str | int | None = None) -> Array:
        """Class logits of every stream point and token, ``[S, T']`` float64; NaN where a lens has no map.

        Parameters
        ----------
        class_index : int
        lens : str or int, optional
            Label or number of a fitted lens that the snapshot carries, instead of the logit lens.
        """
        if lens is not None:
            return self._through(lens, "logits", class_index).astype(np.float64)
        return np.asarray(self.stream_raw(class_index) / self.arrays["sigma"] + self.arrays["offset"][class_index])

    def ranks(self, class_index: int, *, lens: str | int | None = None) -> Array:
        """Class ranks ``[S, T']``: stored, or counted over all classes where the snapshot carries all of them.

        -1 at the stream points of streams that the snapshot does not carry, and where a lens (as in `logits`) has no map.
        """
        if lens is not None:
            stored = self._through(lens, "ranks", class_index)
            return np.where(stored == missing(stored), -1, stored.astype(np.int64))
        kept = self.meta["classes"]["kept"]
        if "ranks" in self.arrays and class_index in kept:
            stored = np.asarray(self.arrays["ranks"][kept.index(class_index)], np.int64)
            return self._at_points(stored, -1)
        self.raw(class_index)  # raises where the class is not carried
        return np.asarray(self.counted_ranks([class_index])[0])

    def _through(self, lens: str | int, part: str, class_index: int) -> Array:
        """An array of a lens for one class, ``[S, T']``; ``KeyError`` where it is not carried."""
        kept = self.meta["classes"]["kept"]
        number = lens_number(self.meta, lens)
        name = lens_array(number, part)
        read = self.meta["lenses"][number]["classes"]
        if class_index not in kept or name not in self.arrays or (read is not None and class_index not in read):
            raise KeyError(
                f"this snapshot carries no {part} of class {class_index} through the lens {lens!r}; take it again with "
                f"trace.snapshot(classes=[{self.class_names[class_index]!r}], lenses=[lens]), from a lens that reads that class "
                "(for ranks: all classes)"
            )
        stored = self.arrays[name][kept.index(class_index)]
        return self._at_points(stored, np.nan if stored.dtype.kind == "f" else missing(stored))

    def _at_points(self, stored: Array, nothing: float) -> Array:
        """An array by stream point ``[S, T']`` from one that has some of them."""
        points = self.meta["payload"].get("points")
        if points is None:
            return stored
        whole = np.full((len(self.arrays["sigma"]), stored.shape[1]), nothing, stored.dtype)
        whole[points] = stored
        return whole

    def counted_ranks(self, classes: Sequence[int]) -> Array:
        """Class ranks ``[K, S, T']`` int64, counted over all classes; of a snapshot that carries all of them.

        As `lens.count_above` counts, without torch; but 0 at tokens that were removed.
        """
        ranks = np.zeros((len(classes), *self.arrays["sigma"].shape), np.int64)
        for tokens, logits in self.scan():
            for counted, c in zip(ranks, classes, strict=True):
                counted[:, tokens] = np.count_nonzero(logits > logits[..., c, None], axis=-1)
        return ranks

    def scan(self) -> Iterator[tuple[slice, Array]]:
        """Logits of every class ``[S, t, C]`` for some tokens at a time; of a snapshot that carries all classes."""
        arrays, kept = self.arrays, self.meta["classes"]["kept"]
        n_points, n_tokens = arrays["sigma"].shape
        step = max(1, SCAN_LIMIT // (8 * n_points * self.meta["classes"]["count"]))
        if "increments" in arrays:
            folded = arrays["embedding"].astype(np.float32).T * self.meta.get("embedding_scale", 1.0)
        for start in range(0, n_tokens, step):
            tokens = slice(start, start + step)
            known = arrays["raw"][:, :, tokens].transpose(1, 2, 0)
            if "increments" in arrays:
                raw = (arrays["increments"][:, tokens].astype(np.float32) @ folded).astype(np.float32)
                raw *= arrays["increment_scale"][:, None, None]
                raw[..., kept] = known
            else:
                raw = known[..., np.argsort(kept)]
            yield tokens, self._stream_points(raw) / arrays["sigma"][:, tokens, None] + arrays["offset"]

    def direct(self, class_index: int) -> Array:
        """Direct contribution of every increment to the class logit at its token, ``[N, T']``."""
        return np.asarray(self.raw(class_index) / self.arrays["sigma"][-1])

    def pack(self) -> bytes:
        """The container's bytes, as they go over the wire."""
        return pack(self.meta, self.arrays)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Snapshot:
        """A snapshot from container bytes; raises `SnapshotError` for anything else."""
        meta, arrays = unpack(data)
        if meta.get("kind") != "snapshot":
            raise SnapshotError(f"expected a whole snapshot, got a container of kind {meta.get('kind')!r}")
        with refusing(SnapshotError, "damaged snapshot"):
            check_snapshot(meta, arrays)
        return cls(cast("SnapshotMeta", meta), arrays)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.csnap`` file (gzip); when writing fails, nothing is left behind."""
        return save_container(path, self.pack())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Open a ``.csnap`` file; raises `SnapshotError` for anything else."""
        with refusing(SnapshotError, f"{path} is not a snapshot file, or it is damaged", unchanged=(OSError,)):
            return cls.unpack(load_container(path, "snapshot"))
