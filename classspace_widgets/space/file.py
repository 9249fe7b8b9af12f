"""A space's class embedding on disk: one safetensors file that knows its backbone by name and by a hash of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.files import refusing, replacing
from classspace_widgets.fitting.classifier import ClassifierFit
from classspace_widgets.models.backbone import SOURCES, Backbone
from classspace_widgets.models.fingerprint import model_fingerprint
from classspace_widgets.models.new_head import KINDS, install_head, own_kind
from classspace_widgets.models.refusals import UnsupportedModelError
from classspace_widgets.space.fitting import own_model
from classspace_widgets.space.space import ClassSpace
from classspace_widgets.tensor_files import header_of, read_tensor_file
from classspace_widgets.validate import Fields

if TYPE_CHECKING:
    from os import PathLike

    from torch import Tensor, nn

VERSION = 1
DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
}
NORMS = ("final", "none", "pool")


def save_space(space: ClassSpace, path: str | PathLike[str]) -> None:
    """Write a space's classes to a file: see `ClassSpace.save`."""
    from safetensors.torch import save_file

    adapter, how = space.adapter, space.preprocessing
    if adapter.pooling == "distilled":
        raise UnsupportedModelError(
            f"{space.name} has two classifiers, and a file holds one; save the model: torch.save(model.state_dict(), path)"
        )
    embedding = adapter.embedding.detach().cpu().contiguous().clone()
    bias = torch.zeros(len(embedding), dtype=embedding.dtype) if adapter.bias is None else adapter.bias
    meta = {
        "name": space.name,
        "class_names": list(space.class_names),
        "installed": adapter.own_output,
        "features": own_kind(adapter.model),
        "class_norm": "pool" if not adapter.linear else "none" if adapter.norm is None else "final",
        "dtype": str(space.dtype).removeprefix("torch."),
        "preprocessing": {
            "size": list(how.size),
            "mean": list(how.mean),
            "std": list(how.std),
            "crop": how.crop,
            "crop_mode": how.crop_mode,
            "interpolation": how.interpolation,
        },
        "backbone": (space.backbone or Backbone("object", type(adapter.model).__name__)).to_dict(),
        "fingerprint": model_fingerprint(adapter.model, leave_out="head."),
    }
    if space.fitted is not None:
        fit = space.fitted
        meta["fitted"] = {name: getattr(fit, name) for name in ("penalty", "accuracy", "n_pictures", "folds")}
    header = header_of("space", VERSION, json.dumps(meta))
    with replacing(path) as place:
        save_file({"embedding": embedding, "bias": bias.detach().cpu().contiguous().clone()}, place, metadata=header)


def load_space(
    path: str | PathLike[str],
    backbone: nn.Module | str | PathLike[str] | None = None,
    *,
    checkpoint: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
) -> ClassSpace:
    """Read a space from a file and a backbone: see `ClassSpace.load`."""
    path = Path(path).expanduser()
    meta, tensors = read_tensor_file(path, "space", VERSION, kind="class space", writer="space.save")
    with refusing(ValueError, f"{path.name} is a damaged class space"):
        record, embedding, bias = _checked(meta, tensors)
    try:
        taken, model, made = _model(record, backbone, checkpoint)
    except UnsupportedModelError:
        raise
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    dtype = DTYPES[meta.text("dtype")]
    installed = meta.flag("installed")
    if installed:
        head = install_head(model, meta.text("features"), len(embedding))
        with torch.no_grad():
            head.weight.copy_(embedding)
            head.bias.copy_(bias)
    how = meta.named("preprocessing")
    model.pretrained_cfg = {**dict(getattr(model, "pretrained_cfg", None) or {}), **_timm_config(how)}
    foreign: dict[str, Any] = {"class_embedding": embedding, "class_bias": bias, "class_norm": meta.text("class_norm")}
    space = ClassSpace(
        model,
        device=device,
        dtype=dtype,
        class_names=meta.texts("class_names"),
        image_size=how["size"],
        name=meta.text("name"),
        check=False,
        **({} if installed else foreign),
    )
    found = model_fingerprint(space.adapter.model, leave_out="head.")
    if found != meta.text("fingerprint"):
        raise ValueError(
            f"{path.name} is of another backbone: it was made with a {record.name} whose weights have the hash "
            f"{meta.text('fingerprint')}, and this one's have {found}; give the model it was made with "
            "(ClassSpace.load(path, backbone=model)), or fit again: ClassSpace.fit(model, data)"
        )
    space.origin, space.backbone = taken.origin, made if backbone is not None else record
    space.identities = space.check()
    if meta.has("fitted"):
        space.fitted = _fit(meta, embedding, bias)
    return space


def _checked(meta: Fields, tensors: dict[str, Tensor]) -> tuple[Backbone, Tensor, Tensor]:
    """The backbone's record and the tensors, once they are known to fit one another."""
    names = meta.texts("class_names")
    embedding, bias = tensors["embedding"], tensors["bias"]
    if embedding.ndim != 2 or len(embedding) != len(names) or tuple(bias.shape) != (len(names),):
        raise ValueError(
            f"its embedding {list(embedding.shape)} and bias {list(bias.shape)} are not those of {len(names)} classes"
        )
    if not bool(torch.isfinite(embedding).all() and torch.isfinite(bias).all()):
        raise ValueError("its class embedding contains NaN or infinite values")
    meta.one_of("features", KINDS)
    meta.one_of("class_norm", NORMS)
    meta.one_of("dtype", tuple(DTYPES))
    meta.wholes("preprocessing.size", 1)
    for part in ("name", "fingerprint"):
        meta.text(part)
    if meta.has("fitted"):
        _fit(meta, embedding, bias)
    size = meta.value("backbone.image_size")
    record = Backbone(
        source=meta.one_of("backbone.source", SOURCES),
        name=meta.text("backbone.name"),
        options=meta.named("backbone.options"),
        pretrained=meta.flag("backbone.pretrained"),
        checkpoint=meta.text("backbone.checkpoint"),
        image_size=None if size is None else tuple(meta.wholes("backbone.image_size", 1)),
    )
    if meta.texts("backbone.left_out"):
        record = Backbone("object", record.name)
    return record, embedding, bias


def _model(record: Backbone, backbone: Any, checkpoint: str | PathLike[str] | None) -> Any:
    """What was taken, the model and its record: the caller's backbone, or the one that the file names."""
    if isinstance(backbone, torch.nn.Module):
        return own_model(backbone)
    if backbone is not None:
        same = record.source != "object" and str(backbone) == record.name
        record = record if same else Backbone("object", record.name)
        if not same:
            return own_model(backbone, checkpoint=checkpoint)
    if record.source == "object":
        record.build()  # which says what to give
    size = record.image_size
    return own_model(
        f"bundled/{record.name}" if record.source == "bundled" else record.name,
        pretrained=record.pretrained,
        checkpoint=_needed(record, checkpoint),
        image_size=size,
        options=record.options,
    )


def _needed(record: Backbone, checkpoint: str | PathLike[str] | None) -> str | PathLike[str] | None:
    if record.checkpoint and checkpoint is None:
        record.build()  # which says that it is needed
    return checkpoint


def _timm_config(how: dict[str, Any]) -> dict[str, Any]:
    """Preprocessing by timm's names."""
    return {
        "input_size": (len(how["mean"]), *how["size"]),
        "mean": tuple(how["mean"]),
        "std": tuple(how["std"]),
        "crop_pct": how["crop"],
        "crop_mode": how["crop_mode"],
        "interpolation": how["interpolation"],
    }


def _fit(meta: Fields, embedding: Tensor, bias: Tensor) -> ClassifierFit:
    return ClassifierFit(
        features=meta.text("features"),
        weight=embedding,
        bias=bias,
        class_names=tuple(meta.texts("class_names")),
        penalty=meta.number("fitted.penalty"),
        accuracy=meta.number("fitted.accuracy"),
        n_pictures=meta.whole("fitted.n_pictures", 1),
        folds=meta.whole("fitted.folds", 1),
    )
