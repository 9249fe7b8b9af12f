"""Safetensors files of the package: a kind, a version, JSON in the metadata, and tensors; nothing in them is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets.files import is_text, parsed, refusing
from classspace_widgets.validate import Fields

if TYPE_CHECKING:
    import os

FORMAT = "classspace {}"
"""What the metadata call a file, by the part of them that holds its JSON."""


def header_of(part: str, version: int, json_text: str) -> dict[str, str]:
    """The metadata of a file: what `read_tensor_file` looks for."""
    return {"format": FORMAT.format(part), "version": str(version), part: json_text}


def read_tensor_file(
    path: str | os.PathLike[str], part: str, version: int, *, kind: str, writer: str, framework: str = "pt"
) -> tuple[Fields, dict[str, Any]]:
    """The JSON and the tensors of a file, once it is known to be one of the expected kind.

    Parameters
    ----------
    path : path
    part : str
        Where in the metadata the JSON is: ``"trace"``, ``"lens"``, ``"space"`` or ``"bank"``.
    version : int
        The newest that can be read.
    kind, writer : str
        What to call such a file in messages, and what writes it.
    framework : str
        ``"pt"`` for torch, ``"np"`` for NumPy.

    Returns
    -------
    tuple of Fields and dict of str to Tensor (or ndarray)

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, of another kind, or of a newer version.

    Examples
    --------
    >>> read_tensor_file("none.safetensors", "lens", 1, kind="fitted lens", writer="lens.save")
    Traceback (most recent call last):
    FileNotFoundError: there is no fitted lens at none.safetensors
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {kind} at {path}")
    with refusing(ValueError, f"{path.name} is not a complete safetensors file", unchanged=(OSError,)):
        header, tensors = _header_and_tensors(path, framework)
    if header.get("format") != FORMAT.format(part):
        raise ValueError(f"{path.name} is not a {kind}; expected a file that {writer} wrote")
    found = header.get("version", "")
    if found.isdecimal() and int(found) > version:
        raise ValueError(
            f"{path.name} has {part} version {found}, this package reads up to {version}; update the package"
        )
    with refusing(ValueError, f"{path.name} is a damaged {kind}"):
        return Fields(parsed(header[part].encode())), tensors


def _header_and_tensors(path: Path, framework: str) -> tuple[dict[str, str], dict[str, Any]]:
    from safetensors import safe_open

    if is_text(path):
        with safe_open(path, framework=framework) as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    # The library takes only paths that are text.
    data = path.read_bytes()
    header = parsed(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if framework == "np":
        from safetensors.numpy import load
    else:
        from safetensors.torch import load
    return header.get("__metadata__", {}), load(data)
