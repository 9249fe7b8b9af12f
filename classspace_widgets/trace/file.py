"""Traces on disk: one safetensors file, versioned; nothing in it is ever unpickled.

The file holds the increments, the output, the folded lens and what else was asked for (attention weights, heads), as
tensors, and everything else as JSON in the file's metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.files import is_text, refusing, replacing
from classspace_widgets.lens import ClassLens
from classspace_widgets.lens.readout import LINEAR_POOLINGS
from classspace_widgets.points import LAYOUTS, Points
from classspace_widgets.tensor_files import header_of, read_tensor_file
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
    header = header_of("trace", VERSION, json.dumps(meta))
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
    fields, tensors = read_tensor_file(path, "trace", VERSION, kind="trace", writer="Trace.save")
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    with refusing(ValueError, f"{Path(path).name} is a damaged trace"):
        return _trace(fields, tensors, space)


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
