"""Files: written whole or not at all, and read without trust in what they hold.

Everything that the package writes goes through `replacing` or `write_whole`; everything that it reads back goes through
`refusing`, `inflated` and `parsed`, so that a damaged or hostile file ends in one documented error.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import secrets
import stat
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_INFLATED_LIMIT = 64_000_000
"""Bytes that any gzipped file may unpack to, however small it is: what a notebook's kernel can spare."""
MAX_INFLATED_RATIO = 50
"""How many times its own size a larger file may unpack to; real arrays and tables shrink to a tenth at most."""
MAX_NESTING = 64
"""How deep lists and objects may stand inside one another in JSON."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all: yields where to write, which then takes the target's place.

    The new file is written beside the target, brought to the disk, and renamed: a reader meanwhile sees the old file
    or the new one, never a part, also where two write at once.  After an error the target is as it was, and nothing else
    is left.  Links are followed; an existing file keeps its permissions, a new one gets the usual ones.

    Parameters
    ----------
    path : path

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the folder does not exist, the path is a folder, or the file is write-protected.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file to write")
    if path.exists() and not path.is_file():  # a pipe or a device has no place that could be taken
        yield path
        return
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; create it first")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{path} is write-protected; make it writable, or name another file")
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE((target if target.exists() else temporary).stat().st_mode)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the folder's own entry; not every file system can
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write bytes as `replacing` does; returns the path."""
    with replacing(path) as place:
        place.write_bytes(data)
    return Path(path)


@contextmanager
def refusing(kind: type[ValueError], what: str, *, unchanged: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn whatever goes wrong while bytes are read into one documented error.

    Parameters
    ----------
    kind : type of ValueError
        Raised instead; errors of this very type pass, for they say what is wrong already.
    what : str
        The start of the message: which file, and what it should have been.
    unchanged : tuple of exception types
        Left as they are: what says something about the disk or the device, not about the bytes.
    """
    try:
        yield
    except Exception as error:  # parsers of damaged bytes raise nearly every kind there is
        if isinstance(error, unchanged) or (type(error) is kind and kind is not ValueError):
            raise
        message = str(error) or type(error).__name__
        raise kind(f"{what} ({message})") from error


def deflated(data: bytes) -> bytes:
    """Bytes, gzipped; the same bytes give the same result, and `inflated` takes it."""
    small = gzip.compress(data, compresslevel=6, mtime=0)
    return small if len(data) <= _inflated_limit(len(small)) else gzip.compress(data, compresslevel=0, mtime=0)


def inflated(data: bytes) -> bytes:
    """Unpack gzipped bytes, as far as a real file could grow.

    Raises
    ------
    ValueError
        If the bytes are not gzip, are cut short, damaged, or unpack to far more than they should.
    """
    most, out = _inflated_limit(len(data)), bytearray()
    while data:
        unpacking = zlib.decompressobj(wbits=31)
        try:
            out += unpacking.decompress(data, max(most - len(out), 0) + 1)
        except zlib.error as error:
            raise ValueError(f"not gzip, or damaged: {error}") from None
        if len(out) > most:
            raise ValueError(
                f"{len(data)} bytes would unpack to more than {most}: no file of this package is packed so tightly"
            )
        if not unpacking.eof:
            raise ValueError("it is cut short")
        data = unpacking.unused_data
    return bytes(out)


def _inflated_limit(packed: int) -> int:
    return max(MIN_INFLATED_LIMIT, MAX_INFLATED_RATIO * packed)


def parsed(text: bytes) -> Any:
    """JSON data: UTF-8, finite numbers, `MAX_NESTING` levels at most.

    Raises
    ------
    ValueError
        For anything else.
    """
    try:
        value = json.loads(text.decode(), parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"lists and objects stand more than {MAX_NESTING} deep in it") from None
    level = [value]
    for _ in range(MAX_NESTING):
        inner = (parent.values() if isinstance(parent, dict) else parent for parent in level if _holds(parent))
        level = [child for children in inner for child in children if _holds(child)]
        if not level:
            return value
    raise ValueError(f"lists and objects stand more than {MAX_NESTING} deep in it")


def _holds(value: Any) -> bool:
    return isinstance(value, (list, dict))


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def readable(text: str) -> str:
    """A text that can be shown and sent anywhere: parts of a file name that are not UTF-8 become U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def is_text(path: str | os.PathLike[str]) -> bool:
    """Whether a path is Unicode: some libraries can open no other."""
    return readable(os.fspath(path)) == os.fspath(path)
