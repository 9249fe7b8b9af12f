"""The container: JSON and arrays in one run of bytes, written by `pack` and read by `unpack`.

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

What the JSON and the arrays mean is not known here: `meta` names the values of the JSON, `check` says which arrays must
be there, in which shapes.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from classspace_widgets.files import deflated, inflated, parsed, refusing, write_whole

__all__ = ["Array", "SnapshotError", "load_container", "pack", "save_container", "unpack"]

Array = np.ndarray[Any, np.dtype[Any]]
"""An array of any shape and numbers."""


class _Entry(TypedDict):
    """How the header describes an array."""

    name: str
    dtype: str
    shape: list[int]
    offset: int
    nbytes: int


MAGIC = b"CSNAP\0"
VERSION = 1
_PREFIX = struct.Struct("<6sHI")
_DTYPES = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32, "i4": np.int32, "f2": np.float16, "f4": np.float32}
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items()}


class SnapshotError(ValueError):
    """The bytes are not a snapshot that this version can read; the message names what is wrong."""


def pack(meta: Mapping[str, object], arrays: Mapping[str, Array]) -> bytes:
    """Write meta data and arrays as one container.

    Parameters
    ----------
    meta : mapping
        JSON data.
    arrays : mapping of str to ndarray
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
    entries: list[_Entry] = []
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


def _header(meta: Mapping[str, object], entries: list[_Entry]) -> bytes:
    text = json.dumps({"meta": meta, "arrays": entries}, ensure_ascii=False, allow_nan=False)
    # Bytes of file names that are not UTF-8 are lone surrogates in Python: they are escaped, as JSON does it.
    return text.encode("utf-8", errors="backslashreplace")


def byte_planes(container: bytes) -> bytes:
    """A container with the bytes of every array in planes: the first byte of every value, then every second byte, and so on.

    Values that are close to one another share their high bytes, so planes compress better.  Only exported pages store
    containers like this; the page's own script puts the bytes back.  Applying it twice does not undo it.
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
        If the bytes are damaged, cut short, of a newer version, or not a snapshot at all.

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
        raise SnapshotError("damaged snapshot: its meta data are not a JSON object")
    return meta, arrays


def _read(view: memoryview, entry: _Entry) -> Array:
    name, code = entry["name"], entry["dtype"]
    if code not in _DTYPES:
        raise SnapshotError(f"damaged snapshot: array {name!r} has unknown dtype {code!r}")
    dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
    shape, offset, nbytes = tuple(entry["shape"]), entry["offset"], entry["nbytes"]
    if not all(type(n) is int and n >= 0 for n in (*shape, offset, nbytes)):
        raise SnapshotError(f"damaged snapshot: array {name!r} has a size or an offset that is not a whole number")
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
    """The next multiple of 8: the browser's typed arrays must begin at a multiple of their item size."""
    return (n + 7) // 8 * 8


def save_container(path: str | os.PathLike[str], container: bytes) -> Path:
    """Write a container as a gzipped file; when writing fails, nothing is left behind."""
    return write_whole(path, deflated(container))


def load_container(path: str | os.PathLike[str], what: str) -> bytes:
    """The container in a file that `save_container` wrote; ``what`` is its content in words, for messages.

    Raises
    ------
    FileNotFoundError
    ValueError
        For a file that is not gzipped, is cut short or damaged, or unpacks to far more than a real one would.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    return inflated(Path(path).read_bytes())
