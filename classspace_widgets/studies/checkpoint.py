"""Checkpoints of runs: one file that is replaced as a whole, and checked before a run resumes from it."""

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

from classspace_widgets._version import __version__
from classspace_widgets.data.sets import parts_of
from classspace_widgets.files import parsed, refusing, replacing
from classspace_widgets.lookup import as_plain
from classspace_widgets.studies.steps import n_pictures
from classspace_widgets.validate import Fields, skipped_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator


FORMAT = 1
_USED = " used"
"""End of the name of an array that says which columns of another one are stored."""


class CheckpointError(ValueError):
    """The checkpoint is damaged, or belongs to a different model, data set, version or set of options."""


def dataset_fingerprint(dataset: Any) -> dict[str, Any]:
    """What distinguishes one data set from another, without reading its pictures."""
    digest = hashlib.sha256()
    for part in _descriptions(dataset):
        digest.update(part.encode())
    own = getattr(dataset, "fingerprint", None)
    return {
        "data": str(getattr(dataset, "name", "") or type(dataset).__name__),
        "pictures": n_pictures(dataset),
        "data_fingerprint": own if isinstance(own, str) else digest.hexdigest()[:16],
    }


def _descriptions(dataset: Any) -> Iterator[str]:
    """What a data set, and those inside it, list about their pictures: labels, names, positions, files."""
    for name in ("labels", "targets", "class_names", "classes", "indices"):
        part = as_plain(getattr(dataset, name, None))
        if isinstance(part, (list, tuple, range)):
            yield f"{name} {json.dumps([str(p) for p in part])}"
    for name in ("paths", "samples"):  # torchvision's samples are pairs of path and label
        files = getattr(dataset, name, None)
        if isinstance(files, (list, tuple)):
            yield json.dumps([Path(p[0] if isinstance(p, (list, tuple)) else p).name for p in files])
    own = getattr(dataset, "_fingerprint", None)  # of a Hugging Face data set
    if isinstance(own, str):
        yield own
    for part in parts_of(dataset):
        yield from _descriptions(part)


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    installed = {"classspace_widgets": __version__, "python": platform.python_version()}
    for package in ("torch", "timm", "numpy"):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def save_checkpoint(path: Path, identity: dict[str, Any], progress: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write a checkpoint; a crash while writing leaves the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = _small(arrays)
    content = {"format": FORMAT, "identity": identity, "progress": progress, "arrays": _fingerprint(small)}
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(content)), **small)


def load_checkpoint(
    path: Path, identity: dict[str, Any], like: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Progress and arrays of a checkpoint, after checking that it is complete and belongs to this run.

    Parameters
    ----------
    path : Path
    identity : dict
        Model, data, versions and options of the run.
    like : dict of str to ndarray
        Arrays of a run that has counted nothing: names, shapes and types must be the same.

    Raises
    ------
    CheckpointError
        If the file is damaged, is not a checkpoint, or belongs to another version or run.
    """
    data = path.read_bytes()
    with refusing(
        CheckpointError, f"{path} is not a checkpoint of a study, or it is damaged; remove it to start again"
    ):
        _check_uncompressed(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            content = parsed(str(stored["header"]).encode())
            header = Fields(content)
            if content.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} has format {_short(content.get('format'))}, this version writes {FORMAT}; remove it to start again"
                )
            _check_identity(path, identity, header.named("identity"))
            small = {name: stored[name] for name in stored.files if name != "header"}
        arrays = _full(small, like)
        if header.text("arrays") != _fingerprint(small):
            raise ValueError("its arrays do not match their fingerprint")
        return _progress(header.named("progress")), arrays


def _check_identity(path: Path, identity: dict[str, Any], saved: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(identity))
    differing = [k for k in sorted({*wanted, *saved}) if wanted.get(k) != saved.get(k)]
    if differing:
        differences = "; ".join(
            f"{k}: checkpoint {_short(saved.get(k))}, now {_short(wanted.get(k))}" for k in differing
        )
        raise CheckpointError(
            f"{path} belongs to another run ({differences}); remove it, or pass another checkpoint path"
        )


def _check_uncompressed(data: bytes) -> None:
    """Raise if a file is compressed: `save_checkpoint` never compresses, and a small file could unpack to a huge one."""
    with zipfile.ZipFile(io.BytesIO(data)) as parts:
        entries = parts.infolist()
    uncompressed = all(
        entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size for entry in entries
    )
    if not uncompressed or sum(entry.file_size for entry in entries) > len(data):
        raise ValueError("its parts are compressed, or overlap")


def _small(arrays: dict[str, Any]) -> dict[str, Any]:
    """Counts without their empty columns, each in as few bytes as it needs; everything else as it is.

    Counts are whole numbers in float64. Token groups that a model or data set does not have are columns of zeros.
    """
    small: dict[str, Any] = {}
    for name, array in arrays.items():
        values = np.asarray(array)
        if values.dtype != np.float64 or values.ndim == 0 or values.size == 0:
            small[name] = values
            continue
        used = values.reshape(-1, values.shape[-1]).any(axis=0)
        kept = values if used.all() else values[..., used]
        counts = kept.astype(_count_type(kept))
        if not np.array_equal(counts, kept):
            counts = kept
        small |= {name: counts, f"{name}{_USED}": used}
    return small


def _count_type(values: np.ndarray[Any, Any]) -> np.dtype[Any]:
    """The smallest type of whole numbers from the least to the greatest value; float64 where there is none."""
    least, greatest = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    for kind in (np.uint8, np.uint16, np.uint32, np.int32, np.int64):
        limits = np.iinfo(kind)
        if limits.min <= least and greatest <= min(limits.max, 2**53):
            return np.dtype(kind)
    return np.dtype(np.float64)


def _with_empty_columns(saved: np.ndarray[Any, Any], used: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Counts in float64 with all columns; as they are if they do not have the columns that are used."""
    if saved.ndim == 0 or saved.shape[-1] != used.sum() or saved.dtype.kind not in "uif":
        return saved
    whole = np.zeros((*saved.shape[:-1], len(used)))
    whole[..., used] = saved
    return whole


def _full(small: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """What `_small` made small; raises unless names, shapes and types are those that a run starts from."""
    arrays = {name: array for name, array in small.items() if not name.endswith(_USED)}
    if set(arrays) != set(like):
        raise ValueError(f"it must contain the arrays {', '.join(sorted(like))}, got {', '.join(sorted(arrays))}")
    for name, empty in like.items():
        saved, empty = arrays[name], np.asarray(empty)
        used = small.get(f"{name}{_USED}")
        if used is not None and empty.ndim and used.shape == empty.shape[-1:] and used.dtype == bool:
            saved = _with_empty_columns(saved, used)
        grows = empty.ndim > 0 and len(empty) == 0  # such as the ranges of pictures that have been counted
        fits = saved.shape[1:] == empty.shape[1:] if grows else saved.shape == empty.shape
        fits = fits and saved.ndim == empty.ndim and saved.dtype.kind == empty.dtype.kind
        arrays[name] = saved
        if not fits:
            raise ValueError(
                f"{name} must have shape {empty.shape} of {empty.dtype}, got {saved.shape} of {saved.dtype}: "
                "it counts other data or another model"
            )
    return arrays


def _fingerprint(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _progress(stored: dict[str, Any]) -> dict[str, Any]:
    """Progress, after checking its list of skipped pictures."""
    skipped_pictures(stored.get("skipped"))
    return stored


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
