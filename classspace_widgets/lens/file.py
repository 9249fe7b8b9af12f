"""Fitted lenses on disk: one safetensors file, versioned; nothing in it is ever unpickled."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.files import refusing, replacing
from classspace_widgets.lens.fitted import FITTED, FittedLens
from classspace_widgets.lens.lens import ClassLens
from classspace_widgets.points import LAYOUTS, Points
from classspace_widgets.tensor_files import header_of, read_tensor_file
from classspace_widgets.validate import Fields

if TYPE_CHECKING:
    from os import PathLike

    from torch import Tensor

VERSION = 1
_TEXTS = ("kind", "layout", "model_name", "fingerprint")
_LISTS = ("classes", "class_names", "prefix")


def save_lens(lens: FittedLens, path: str | PathLike[str]) -> None:
    """Write a fitted lens to a safetensors file."""
    from safetensors.torch import save_file

    tensors, header = _contents(lens)
    with replacing(path) as place:
        save_file(tensors, place, metadata=header)


def packed_lens(lens: FittedLens) -> bytes:
    """A fitted lens as the bytes of a file, its maps in float16: half the size, at a precision far above their error."""
    from safetensors.torch import save

    tensors, header = _contents(lens)
    data: bytes = save({**tensors, "weights": tensors["weights"].half()}, metadata=header)
    return data


def _contents(lens: FittedLens) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {name: getattr(lens, name) for name in ("weights", "offsets", "defined", "classifier", "error")}
    meta: dict[str, Any] = {name: getattr(lens, name) for name in (*_TEXTS, *_LISTS, "n_pictures")}
    if lens.logit is not None:
        tensors |= {"logit.folded": lens.logit.folded, "logit.offset": lens.logit.offset}
        meta["logit"] = {"centred": lens.logit.centred, "scaled": lens.logit.scaled, "eps": lens.logit.eps}
    meta["trust"] = {
        measure: [None if math.isnan(value) else value for value in values] for measure, values in lens.trust.items()
    }
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return whole, header_of("lens", VERSION, json.dumps(meta))


def load_lens(path: str | PathLike[str]) -> FittedLens:
    """Read a lens that `save_lens` wrote; errors as in `FittedLens.load`."""
    meta, tensors = read_tensor_file(path, "lens", VERSION, kind="fitted lens", writer="lens.save")
    with refusing(ValueError, f"{Path(path).name} is a damaged fitted lens"):
        return _lens(meta, tensors)


def _lens(meta: Fields, tensors: dict[str, Tensor]) -> FittedLens:
    """A lens from meta data and tensors, once they are known to fit one another."""
    names, prefix = meta.texts("class_names"), meta.texts("prefix")
    classes = meta.wholes("classes", 0, len(names) - 1)
    layout = meta.one_of("layout", LAYOUTS)
    points, kinds, kept, width = tensors["weights"].shape
    Points.of_increments(points, layout)
    if kinds != len(prefix) + 1 or kept != len(classes):
        raise ValueError(f"its maps of {kinds} kinds of tokens and {kept} classes are not those that it names")
    expected = {
        "weights": (points, kinds, kept, width),
        "offsets": (points, kinds, kept),
        "defined": (points, kinds),
        "classifier": (points, kinds),
        "error": (points, kinds),
    }
    if "logit.folded" in tensors:
        expected |= {"logit.folded": (len(names), width), "logit.offset": (len(names),)}
    elif bool(tensors["classifier"].any()):
        raise ValueError("it leaves tokens to a classifier that it lacks")
    for name, shape in expected.items():
        flags = name in ("defined", "classifier")
        if tuple(tensors[name].shape) != shape or (tensors[name].dtype == torch.bool) != flags:
            raise ValueError(
                f"{name} must have shape {list(shape)}, got {list(tensors[name].shape)} {tensors[name].dtype}"
            )
    precise = torch.float64 if tensors["weights"].dtype == torch.float64 else torch.float32
    floats = {name: tensors[name].to(precise) for name in expected if name not in ("defined", "classifier")}
    return FittedLens(
        kind=meta.one_of("kind", FITTED),
        weights=floats["weights"],
        offsets=floats["offsets"],
        defined=tensors["defined"],
        classifier=tensors["classifier"],
        logit=_logit(meta, floats),
        classes=tuple(classes),
        class_names=tuple(names),
        prefix=tuple(prefix),
        layout=layout,
        n_pictures=meta.whole("n_pictures", 1),
        error=floats["error"],
        model_name=meta.text("model_name"),
        fingerprint=meta.text("fingerprint"),
        trust=_trust(meta, 1 + Points.of_increments(points, layout).n_blocks),
    )


def _trust(meta: Fields, count: int) -> dict[str, tuple[float, ...]]:
    if not meta.has("trust"):
        return {}
    found = {
        measure: tuple(math.nan if value is None else float(value) for value in values)
        for measure, values in meta.named("trust").items()
    }
    if any(len(values) != count for values in found.values()):
        raise ValueError(f"its measures of trust must have {count} values each, one for each block from 0 on")
    return found


def _logit(meta: Fields, tensors: dict[str, Tensor]) -> ClassLens | None:
    if "logit.folded" not in tensors:
        return None
    return ClassLens(
        tensors["logit.folded"],
        tensors["logit.offset"],
        centred=meta.flag("logit.centred"),
        scaled=meta.flag("logit.scaled"),
        eps=meta.number("logit.eps"),
    )
