"""Traces on disk: one safetensors file, versioned; nothing in it is ever unpickled.

The file holds the increments, the output, the folded lens and what else was asked for (attention weights, heads), as
tensors, and everything else as JSON in the file's metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.files import is_text, parsed, refusing, replacing
from classspace_widgets.lens import ClassLens
from classspace_widgets.lens.readout import LINEAR_POOLINGS
from classspace_widgets.points import LAYOUTS, Points
from classspace_widgets.trace import Trace
from classspace_widgets.trace.hooks import KEPT_BY_BLOCK
from classspace_widgets.validate import Fields

if TYPE_CHECKING:
    from os import PathLike

    from torch import Tensor

    from classspace_widgets.trace.trace import Space

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
    from safetensors import SafetensorError
    from safetensors.torch import save, save_file

    tensors: dict[str, Tensor] = {"output": trace.output}
    tensors |= {f"increments.{n}": increment for n, increment in enumerate(trace.increments)}
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
    whole = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as place:
        try:
            if is_text(place):
                save_file(whole, place, metadata=header)
            else:
                place.write_bytes(save(whole, metadata=header))
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from error


def load_trace(path: str | PathLike[str], *, device: str = "cpu", space: Space | None = None) -> Trace:
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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no trace at {path}")
    with refusing(ValueError, f"{path.name} is not a complete safetensors file", unchanged=(OSError,)):
        header, tensors = _header_and_tensors(path)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    if header.get("format") != "classspace trace":
        raise ValueError(f"{path.name} is not a trace; expected a file that Trace.save wrote")
    version = header.get("version", "")
    if version.isdecimal() and int(version) > VERSION:
        raise ValueError(
            f"{path.name} has trace version {version}, this package reads up to {VERSION}; update the package"
        )
    with refusing(ValueError, f"{path.name} is a damaged trace"):
        return _trace(Fields(parsed(header["trace"].encode())), tensors, space)


def _header_and_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import safe_open
    from safetensors.torch import load

    if is_text(path):
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    data = path.read_bytes()
    header = parsed(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header.get("__metadata__", {}), load(data)


def _trace(fields: Fields, tensors: dict[str, Tensor], space: Space | None) -> Trace:
    """A trace from meta data and tensors, once they are known to fit one another."""
    flags: dict[str, Any] = {
        "centred": fields.flag("lens.centred"),
        "scaled": fields.flag("lens.scaled"),
        "eps": fields.number("lens.eps"),
    }
    grid = fields.wholes("grid", 1)
    layout = fields.one_of("layout", LAYOUTS)
    prefix, class_names = fields.texts("prefix"), fields.texts("class_names")
    count = sum(name.startswith("increments.") for name in tensors)
    increments = tuple(tensors[f"increments.{n}"] for n in range(count))
    _, tokens, _ = increments[0].shape
    if len(grid) != 2 or len(prefix) + grid[0] * grid[1] != tokens:
        raise ValueError(f"{len(prefix)} prefix tokens and a grid of {grid} are not {tokens} tokens")
    by_block = _by_block(tensors, Points.of_increments(count, layout).n_blocks)
    _check_tensors(tensors, len(class_names))
    kept, pictures = fields.value("kept_tokens"), tensors.get("pictures")
    lenses = [
        ClassLens(tensors[f"{name}.folded"], tensors[f"{name}.offset"], **flags)
        for name in ("lens", "second")
        if name == "lens" or "second.folded" in tensors
    ]
    return Trace(
        increments=increments,
        output=tensors["output"],
        lens=lenses[0],
        prefix=tuple(prefix),
        grid=(grid[0], grid[1]),
        pooling=fields.one_of("pooling", LINEAR_POOLINGS),
        layout=layout,
        class_names=tuple(class_names),
        pictures=None if pictures is None else pictures.cpu().numpy(),
        image_names=tuple(fields.texts("image_names")),
        model_name=fields.text("model_name"),
        heads=fields.whole("heads", 0),
        pool_prefix=fields.flag("pool_prefix"),
        second_lens=lenses[1] if len(lenses) > 1 else None,
        kept_tokens=None if kept is None else tuple(fields.wholes("kept_tokens", 0, tokens - 1)),
        space=space,
        **by_block,
    )


def _by_block(tensors: dict[str, Tensor], blocks: int) -> dict[str, Any]:
    """What was kept on request, by its name and by block."""
    found: dict[str, dict[int, Tensor]] = {name: {} for name in KEPT_BY_BLOCK}
    for name, tensor in tensors.items():
        what, _, block = name.partition(".")
        if what in found:
            if not (block.isdecimal() and 1 <= int(block) <= blocks):
                raise ValueError(f"{name} belongs to none of {blocks} blocks")
            found[what][int(block)] = tensor
    return found


def _check_tensors(tensors: dict[str, Tensor], classes: int) -> None:
    """Raise `ValueError` for a tensor whose shape or kind of numbers does not fit the others; for a missing one `KeyError`."""
    images, tokens, width = tensors["increments.0"].shape
    expected: dict[str, tuple[int | None, ...]] = {"output": (images, classes)}
    for lens in ("lens", "second"):
        if lens == "lens" or "second.folded" in tensors:
            expected |= {f"{lens}.folded": (classes, width), f"{lens}.offset": (classes,)}
    shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(KEPT_BY_BLOCK, (images, tokens, None))
    shapes |= {
        "increments": (images, tokens, width),
        "attention_weights": (images, None, tokens, tokens),
        "pictures": (images, None, None, 3),
    }
    expected |= {name: shapes[what] for name in tensors if (what := name.partition(".")[0]) in shapes}
    for name, shape in expected.items():
        found = tuple(tensors[name].shape)
        if len(found) != len(shape) or any(w is not None and n != w for n, w in zip(found, shape, strict=True)):
            raise ValueError(f"{name} must have shape {list(shape)}, got {list(found)}")
        right = tensors[name].dtype == torch.uint8 if name == "pictures" else tensors[name].is_floating_point()
        if not right:
            raise ValueError(f"{name} holds numbers of another kind, {tensors[name].dtype}")


def _lens_meta(lens: ClassLens) -> dict[str, Any]:
    return {"centred": lens.centred, "scaled": lens.scaled, "eps": lens.eps}
