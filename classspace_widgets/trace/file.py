"""Traces on disk: one safetensors file, versioned; nothing in it is ever unpickled.

The file holds the increments, the output, the folded lens and what else was asked for (attention weights, heads), as
tensors, and everything else as JSON in the file's metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens import ClassLens
from classspace_widgets.trace import Trace
from classspace_widgets.trace.hooks import KEPT_BY_BLOCK

if TYPE_CHECKING:
    from os import PathLike

    from torch import Tensor

VERSION = 1
PLAIN: list[str] = [
    "prefix",
    "grid",
    "pooling",
    "layout",
    "class_names",
    "image_names",
    "model_name",
    "heads",
    "pool_prefix",
    "kept_tokens",
]


def save_trace(trace: Trace, path: str | PathLike[str]) -> None:
    """Write a trace to a safetensors file (its model is not saved)."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {"output": trace.output}
    tensors |= {f"increments.{n}": increment for n, increment in enumerate(trace.increments)}
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file to write")
    if not Path(path).resolve().parent.is_dir():
        raise FileNotFoundError(f"the folder {Path(path).parent} does not exist; create it first")
    for name in KEPT_BY_BLOCK:
        tensors |= {f"{name}.{block}": tensor for block, tensor in getattr(trace, name).items()}
    if trace.pictures is not None:
        tensors["pictures"] = torch.from_numpy(trace.pictures)
    meta: dict[str, Any] = {name: getattr(trace, name) for name in PLAIN} | {"lens": _lens_meta(trace.lens)}
    tensors |= {"lens.folded": trace.lens.folded, "lens.offset": trace.lens.offset}
    if trace.second_lens is not None:
        tensors |= {"second.folded": trace.second_lens.folded, "second.offset": trace.second_lens.offset}
    header = {"format": "classspace trace", "version": str(VERSION), "trace": json.dumps(meta)}
    # Tensors that share storage, as views of one buffer do, are refused by safetensors: every one is written whole.
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path, metadata=header)


def load_trace(path: str | PathLike[str], *, device: str = "cpu", space: Any = None) -> Trace:
    """Read a trace that `save_trace` wrote.

    Parameters
    ----------
    path : path
    device : str
    space : ClassSpace, optional
        The model that the trace came from, for what needs it (values, output projections, live views).

    Raises
    ------
    FileNotFoundError, ValueError
        For a file that is not there, is damaged, is not a trace, or is of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no trace at {path}")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path.name} is not a complete safetensors file: {error}") from error
    if header.get("format") != "classspace trace":
        raise ValueError(f"{path.name} is not a trace; expected a file that Trace.save wrote")
    if int(header["version"]) > VERSION:
        raise ValueError(
            f"{path.name} has trace version {header['version']}, this package reads up to {VERSION}; update the package"
        )
    meta = json.loads(header["trace"])
    flags = meta.pop("lens")
    rest: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in meta.items()}
    rest |= {
        name: {int(key.split(".")[1]): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        for name in KEPT_BY_BLOCK
    }
    count = sum(key.startswith("increments.") for key in tensors)
    pictures = tensors.get("pictures")
    second = (
        ClassLens(tensors["second.folded"], tensors["second.offset"], **flags) if "second.folded" in tensors else None
    )
    return Trace(
        increments=[tensors[f"increments.{n}"] for n in range(count)],
        output=tensors["output"],
        lens=ClassLens(tensors["lens.folded"], tensors["lens.offset"], **flags),
        pictures=None if pictures is None else pictures.cpu().numpy(),
        second_lens=second,
        space=space,
        **rest,
    )


def _lens_meta(lens: ClassLens) -> dict[str, Any]:
    return {"centred": lens.centred, "scaled": lens.scaled, "eps": lens.eps}
