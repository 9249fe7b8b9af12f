"""Where a run stands, in one file that is replaced whole; identity checks before resuming."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets._version import __version__

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1


class CheckpointError(ValueError):
    """The checkpoint belongs to another model, data set, version or set of options."""


def model_fingerprint(model: nn.Module) -> str:
    """A short hash of a model: every tensor's name, shape and up to 256 of its values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 256)].double().cpu().numpy()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def dataset_fingerprint(dataset: Any) -> dict[str, Any]:
    """What tells one data set from another without reading its pictures."""
    digest = hashlib.sha256()
    for part in (getattr(dataset, "labels", None), getattr(dataset, "class_names", None)):
        if isinstance(part, (list, tuple, np.ndarray)):
            digest.update(json.dumps([str(p) for p in part]).encode())
    paths = getattr(dataset, "paths", None)
    if isinstance(paths, (list, tuple)):
        digest.update(json.dumps([Path(p).name for p in paths]).encode())
    own = getattr(dataset, "fingerprint", None)
    return {
        "data": str(getattr(dataset, "name", "") or type(dataset).__name__),
        "pictures": len(dataset),
        "data_fingerprint": own if isinstance(own, str) else digest.hexdigest()[:16],
    }


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
    header = json.dumps({"format": FORMAT, "identity": identity, "progress": progress})
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        np.savez(file, header=np.array(header), **arrays)
    os.replace(unfinished, path)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Progress and arrays of a checkpoint, after checking that it belongs to this run."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            arrays = {name: stored[name] for name in stored.files if name != "header"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is not a checkpoint of a study ({error}); remove it to start anew") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {header.get('format')}, this version writes {FORMAT}; remove it to start anew"
        )
    wanted, found = json.loads(json.dumps(identity)), header["identity"]
    differing = [k for k in sorted({*wanted, *found}) if wanted.get(k) != found.get(k)]
    if differing:
        told = "; ".join(f"{k}: checkpoint {_short(found.get(k))}, now {_short(wanted.get(k))}" for k in differing)
        raise CheckpointError(f"{path} belongs to another run ({told}); remove it, or give another checkpoint path")
    return header["progress"], arrays


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
