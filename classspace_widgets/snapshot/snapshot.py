"""The compact, torch-free arrays that a view needs, and the one file format they travel in.

The same bytes go over the widget's comm, into ``.csnap`` files (gzipped) and into exported pages (gzipped, base64):

===============  ==========  ==========================================================
bytes            type        meaning
===============  ==========  ==========================================================
0..5             6 bytes     the magic ``CSNAP\\0``
6..7             uint16      format version
8..11            uint32      length h of the header
12..12+h         UTF-8 JSON  ``{"meta": ..., "arrays": [{name, dtype, shape, offset, nbytes}]}``
...              arrays      little endian, C order, each at a multiple of 8 from the start
===============  ==========  ==========================================================

Migration rule: a reader refuses a version newer than its own, and reads every older one.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.files import deflated, inflated, parsed, refusing, write_whole
from classspace_widgets.wellformed import check_snapshot

__all__ = ["Snapshot", "SnapshotError", "pack", "unpack"]

Array = np.ndarray[Any, np.dtype[Any]]

MAGIC = b"CSNAP\0"
VERSION = 1
SCAN_LIMIT = 32_000_000
"""Bytes of logits of every class that are held at a time."""
_PREFIX = struct.Struct("<6sHI")
_DTYPES = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32, "i4": np.int32, "f2": np.float16, "f4": np.float32}
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items()}


class SnapshotError(ValueError):
    """The bytes are not a snapshot that this version can read; the message names what is wrong."""


def pack(meta: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Write meta data and arrays as one container.

    Parameters
    ----------
    meta : dict
        JSON data.
    arrays : dict of str to ndarray
        Of dtype uint8, uint16, uint32, int32, float16 or float32.

    Returns
    -------
    bytes

    Raises
    ------
    TypeError
        For an array of another dtype.

    Examples
    --------
    >>> container = pack({"kind": "mine"}, {"a": np.arange(3, dtype=np.float32)})
    >>> container[:6], len(container) % 8
    (b'CSNAP\\x00', 0)
    """
    entries: list[dict[str, Any]] = []
    for name, array in arrays.items():
        if array.dtype not in _CODES:
            raise TypeError(
                f"array {name!r} must be one of {sorted(str(np.dtype(d)) for d in _CODES)}, got {array.dtype}"
            )
        entries.append(
            {
                "name": name,
                "dtype": _CODES[array.dtype],
                "shape": list(array.shape),
                "offset": 0,
                "nbytes": array.nbytes,
            }
        )
    # Offsets stand in the header whose length they depend on: reserve room for the widest, then fill in.
    width = len(_header(meta, entries)) + 20 * len(entries) + 16
    start = _aligned(_PREFIX.size + width)
    position = start
    for entry in entries:
        entry["offset"] = position
        position = _aligned(position + entry["nbytes"])
    header = _header(meta, entries).ljust(start - _PREFIX.size)
    out = bytearray(position)
    _PREFIX.pack_into(out, 0, MAGIC, VERSION, len(header))
    out[_PREFIX.size : start] = header
    for entry, array in zip(entries, arrays.values(), strict=True):
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        out[entry["offset"] : entry["offset"] + entry["nbytes"]] = little.tobytes()
    return bytes(out)


def _header(meta: dict[str, Any], entries: list[dict[str, Any]]) -> bytes:
    text = json.dumps({"meta": meta, "arrays": entries}, ensure_ascii=False, allow_nan=False)
    # Half a character, as in file names that are not UTF-8, is escaped as JSON does.
    return text.encode("utf-8", errors="backslashreplace")


def in_planes(container: bytes) -> bytes:
    """A container with the bytes of every array in planes: first bytes of all values, then the second ones, and so on.

    Values that are close share their high bytes, so planes compress better.  Doing it twice does not undo it: only pages
    store containers so, and their own script puts the bytes back.
    """
    _, _, length = _PREFIX.unpack_from(container, 0)
    header = json.loads(container[_PREFIX.size : _PREFIX.size + length])
    out = np.frombuffer(container, np.uint8).copy()
    for entry in header["arrays"]:
        part = out[entry["offset"] : entry["offset"] + entry["nbytes"]]
        size = np.dtype(_DTYPES[entry["dtype"]]).itemsize
        part[:] = part.reshape(-1, size).T.ravel().copy()
    return out.tobytes()


def unpack(data: bytes | bytearray | memoryview) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read a container back; the inverse of `pack`.

    Parameters
    ----------
    data : bytes
        A container, as `pack` writes it (a ``.csnap`` file is the gzip of one).

    Returns
    -------
    tuple of dict and dict of str to ndarray
        Meta data, and arrays by name.

    Raises
    ------
    SnapshotError
        If the bytes are damaged, cut short, of a newer version, or no snapshot at all.

    Examples
    --------
    >>> meta, arrays = unpack(pack({"kind": "mine"}, {"a": np.arange(3, dtype=np.float32)}))
    >>> meta["kind"], arrays["a"].dtype
    ('mine', dtype('float32'))
    """
    view = memoryview(data).cast("B")
    if len(view) < _PREFIX.size:
        raise SnapshotError(f"not a snapshot: expected at least {_PREFIX.size} bytes, got {len(view)}")
    magic, version, length = _PREFIX.unpack_from(view, 0)
    if magic != MAGIC:
        raise SnapshotError(f"not a snapshot: expected it to start with {MAGIC!r}, got {bytes(magic)!r}")
    if version > VERSION:
        raise SnapshotError(
            f"the snapshot has format version {version}, this package reads up to {VERSION}; "
            "update it with: pip install -U classspace-widgets"
        )
    if _PREFIX.size + length > len(view):
        raise SnapshotError(f"damaged snapshot: its header of {length} bytes reaches past the end ({len(view)} bytes)")
    with refusing(SnapshotError, "damaged snapshot: its header cannot be read"):
        header = parsed(bytes(view[_PREFIX.size : _PREFIX.size + length]))
        meta, entries = header["meta"], header["arrays"]
        if sum(entry["nbytes"] for entry in entries) > len(view):
            raise SnapshotError("damaged snapshot: its arrays share bytes, or reach past the end")
        arrays = {str(entry["name"]): _read(view, entry) for entry in entries}
        if len(arrays) != len(entries):
            raise SnapshotError("damaged snapshot: two of its arrays have one name")
    if not isinstance(meta, dict):
        raise SnapshotError("damaged snapshot: its meta data are no JSON object")
    return meta, arrays


def _read(view: memoryview, entry: dict[str, Any]) -> Array:
    name, code = entry["name"], entry["dtype"]
    if code not in _DTYPES:
        raise SnapshotError(f"damaged snapshot: array {name!r} has unknown dtype {code!r}")
    dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
    shape, offset, nbytes = tuple(entry["shape"]), entry["offset"], entry["nbytes"]
    if not all(type(n) is int and n >= 0 for n in (*shape, offset, nbytes)):
        raise SnapshotError(f"damaged snapshot: array {name!r} has a size or place that is no whole number")
    if math.prod(shape) * dtype.itemsize != nbytes:
        raise SnapshotError(f"damaged snapshot: array {name!r} of shape {shape} does not fill {nbytes} bytes")
    if offset + nbytes > len(view):
        raise SnapshotError(
            f"damaged snapshot: array {name!r} ends at byte {offset + nbytes}, the data at byte {len(view)}"
        )
    return (
        np.frombuffer(view, dtype, count=nbytes // dtype.itemsize, offset=offset).reshape(shape).astype(_DTYPES[code])
    )


def _aligned(n: int) -> int:
    return (n + 7) // 8 * 8


@dataclass
class Snapshot:
    """One picture's trace, reduced to what the views need; opens where there is no torch.

    Axis letters: S stream points (embedding; then attention output, mid, MLP output, residual of every block),
    N increments (embedding; then attention and MLP of every block), T' tokens (with the pooled token of a mean-pooling
    model as the last), K classes kept.

    Made by `Trace.snapshot` and `Snapshot.load`.

    Attributes
    ----------
    meta : dict
        Model, tokens, classes, image, payload, exactness (documented in ``docs/snapshot_format.md``).
    arrays : dict of str to ndarray
        ``raw`` [K, N, T'], ``sigma`` [S, T'], ``offset`` [C], ``output_logits`` [C], ``image`` (file bytes), and what
        the payload mode adds.
    source : object, optional
        Answers requests for what the snapshot does not carry (in a live kernel); never saved, pickled or copied.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> snapshot = ClassSpace.bundled().trace(gallery()[0].picture).snapshot()
    >>> snapshot.ranks(snapshot.predicted[0]).shape  # S stream points, T' tokens
    (33, 145)
    >>> Snapshot.unpack(snapshot.pack()).class_names[:2]
    ['fish', 'boat']
    """

    meta: dict[str, Any]
    arrays: dict[str, Array]
    source: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "source": None}

    def __repr__(self) -> str:
        model, tokens, classes = self.meta["model"], self.meta["tokens"], self.meta["classes"]
        return (
            f"Snapshot({model['name']}: {model['blocks']} blocks, {tokens['count']} tokens, "
            f"{len(classes['kept'])} of {classes['count']} classes, {self.meta['payload']['mode']}, {self.nbytes / 1e6:.2f} MB)"
        )

    def _repr_html_(self) -> str:
        from classspace_widgets.snapshot.still import as_html

        return as_html(self, repr(self))

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
        return int(self.meta["model"]["blocks"])

    @property
    def predicted(self) -> list[int]:
        """The model's own classes, best first."""
        order = np.argsort(-self.arrays["output_logits"], kind="stable")
        return [int(i) for i in order]

    def raw(self, class_index: int) -> Array:
        """Folded readings of the increments for a class, ``[N, T']`` float32; ``KeyError`` when it is not carried."""
        kept = self.meta["classes"]["kept"]
        if self.meta["payload"].get("ranks_only"):
            raise KeyError("this snapshot carries ranks and top classes alone, no readings")
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
        points = [residual[0]]
        if self.meta["model"]["layout"] == "sequential":
            for block in range(1, self.n_blocks + 1):
                points += [raw[2 * block - 1], residual[2 * block - 1], raw[2 * block], residual[2 * block]]
        else:
            for block in range(1, self.n_blocks + 1):
                points += [raw[block], residual[block]]
        return np.stack(points)

    def logits(self, class_index: int) -> Array:
        """Class logits of every stream point and token, ``[S, T']`` float64."""
        return np.asarray(self.stream_raw(class_index) / self.arrays["sigma"] + self.arrays["offset"][class_index])

    def ranks(self, class_index: int) -> Array:
        """Class ranks ``[S, T']``: stored, or counted over all classes where the snapshot carries all of them.

        -1 at the stream points of streams that the snapshot does not carry.
        """
        kept = self.meta["classes"]["kept"]
        if "ranks" in self.arrays and class_index in kept:
            stored = np.asarray(self.arrays["ranks"][kept.index(class_index)], np.int64)
            points = self.meta["payload"].get("points")
            if points is None:
                return stored
            ranks = np.full((len(self.arrays["sigma"]), stored.shape[1]), -1, np.int64)
            ranks[points] = stored
            return ranks
        self.raw(class_index)  # says so where the class is not carried
        return np.asarray(self.counted_ranks([class_index])[0])

    def counted_ranks(self, classes: Sequence[int]) -> Array:
        """Class ranks ``[K, S, T']`` int64, counted over all classes; of a snapshot that carries all of them."""
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
        return cls(meta, arrays)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.csnap`` file (gzip); nothing is left behind when writing fails."""
        return write_whole(path, deflated(self.pack()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Open a ``.csnap`` file; raises `SnapshotError` for anything else."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no snapshot at {path}")
        data = Path(path).read_bytes()
        with refusing(SnapshotError, f"{path} is no snapshot file, or it is damaged"):
            return cls.unpack(inflated(data))
