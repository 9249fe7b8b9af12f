"""Where a run stands, in one file that is replaced whole; identity checks before resuming."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets._version import __version__
from classspace_widgets.data.sets import parts_of
from classspace_widgets.files import parsed, refusing, replacing
from classspace_widgets.validate import Fields, skipped_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

FORMAT = 1


class CheckpointError(ValueError):
    """The checkpoint is damaged, or belongs to another model, data set, version or set of options."""


def model_fingerprint(model: nn.Module) -> str:
    """A short hash of a model: every tensor's name, kind and shape, the sum of all its values, and 256 of them.

    Sums are of the values' bits as whole numbers: exact in any order, so the same on every device, and changed by any value
    that changes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        # Parts of complex numbers are numbers of their own; what is not dense is written out.
        flat = (
            (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().to_dense().contiguous().flatten()
        )
        bits = flat.view(_BITS[flat.element_size()])
        places = torch.linspace(0, len(bits) - 1, min(256, len(bits)), dtype=torch.float64, device="cpu").long()
        sample = bits[places.to(bits.device)].cpu().numpy()
        digest.update(f"{int(bits.sum(dtype=torch.int64))} ".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def dataset_fingerprint(dataset: Any) -> dict[str, Any]:
    """What tells one data set from another without reading its pictures."""
    digest = hashlib.sha256()
    for part in _told(dataset):
        digest.update(part.encode())
    own = getattr(dataset, "fingerprint", None)
    return {
        "data": str(getattr(dataset, "name", "") or type(dataset).__name__),
        "pictures": len(dataset),
        "data_fingerprint": own if isinstance(own, str) else digest.hexdigest()[:16],
    }


def _told(dataset: Any) -> Iterator[str]:
    """What a data set, and those that it is made of, tell of their pictures: labels, names, positions, files."""
    for name in ("labels", "targets", "class_names", "classes", "indices"):
        part: Any = getattr(dataset, name, None)
        part = part.tolist() if hasattr(part, "tolist") else part
        if isinstance(part, (list, tuple, range)):
            yield f"{name} {json.dumps([str(p) for p in part])}"
    for name in ("paths", "samples"):  # torchvision's samples are pairs of path and label
        files = getattr(dataset, name, None)
        if isinstance(files, (list, tuple)):
            yield json.dumps([Path(p[0] if isinstance(p, (list, tuple)) else p).name for p in files])
    own = getattr(dataset, "_fingerprint", None)  # a Hugging Face data set's
    if isinstance(own, str):
        yield own
    for part in parts_of(dataset):
        yield from _told(part)


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    found = {"classspace_widgets": __version__, "python": platform.python_version()}
    for package in ("torch", "timm", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def save_checkpoint(path: Path, identity: dict[str, Any], progress: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write a checkpoint; a crash in the middle leaves the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "identity": identity, "progress": progress, "arrays": _fingerprint(arrays)}
    with replacing(path) as place, place.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(content)), **arrays)


def load_checkpoint(
    path: Path, identity: dict[str, Any], like: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Progress and arrays of a checkpoint, after checking that it is whole and belongs to this run.

    Parameters
    ----------
    path : Path
    identity : dict
        What the run is: model, data, versions, options.
    like : dict of str to ndarray, optional
        Arrays of a run that has counted nothing: names, shapes and kinds must be the same.

    Raises
    ------
    CheckpointError
        If the file is damaged, no checkpoint, of another version, or of another run.
    """
    data = path.read_bytes()
    with refusing(CheckpointError, f"{path} is not a checkpoint of a study, or it is damaged; remove it to start anew"):
        _stored_plainly(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            content = parsed(str(stored["header"]).encode())
            header = Fields(content)
            if content.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} has format {_short(content.get('format'))}, this version writes {FORMAT}; remove it to start anew"
                )
            _compared(path, identity, header.named("identity"))
            arrays = {name: stored[name] for name in stored.files if name != "header"}
        _fitting(arrays, like)
        if header.text("arrays") != _fingerprint(arrays):
            raise ValueError("its arrays are not those that were written with it")
        return _progress(header.named("progress")), arrays


def _compared(path: Path, identity: dict[str, Any], found: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(identity))
    differing = [k for k in sorted({*wanted, *found}) if wanted.get(k) != found.get(k)]
    if differing:
        told = "; ".join(f"{k}: checkpoint {_short(found.get(k))}, now {_short(wanted.get(k))}" for k in differing)
        raise CheckpointError(f"{path} belongs to another run ({told}); remove it, or give another checkpoint path")


def _stored_plainly(data: bytes) -> None:
    """Checkpoints are never compressed: a file that unpacks to more than it is was not written by `save_checkpoint`."""
    with zipfile.ZipFile(io.BytesIO(data)) as parts:
        entries = parts.infolist()
    plain = all(
        entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size for entry in entries
    )
    if not plain or sum(entry.file_size for entry in entries) > len(data):
        raise ValueError("its parts are compressed, or share bytes")


def _fitting(arrays: dict[str, Any], like: dict[str, Any] | None) -> None:
    """Whether arrays have the names, shapes and kinds of those that a run starts from."""
    if like is None:
        return
    if set(arrays) != set(like):
        raise ValueError(f"it must hold the arrays {', '.join(sorted(like))}, got {', '.join(sorted(arrays))}")
    for name, own in like.items():
        given, own = arrays[name], np.asarray(own)
        grows = len(own.shape) > 0 and len(own) == 0  # such as the ranges of pictures that have been seen
        fits = given.ndim == own.ndim and given.shape[1:] == own.shape[1:] if grows else given.shape == own.shape
        if not fits or given.dtype.kind != own.dtype.kind:
            raise ValueError(
                f"{name} must have shape {own.shape} of {own.dtype}, got {given.shape} of {given.dtype}: "
                "it counts other data or another model"
            )


def _fingerprint(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _progress(said: dict[str, Any]) -> dict[str, Any]:
    """Progress, once its list of skipped pictures is known to be one."""
    skipped_pictures(said.get("skipped"))
    return said


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
