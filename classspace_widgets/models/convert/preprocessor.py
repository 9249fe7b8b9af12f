"""From ``preprocessor_config.json`` of Hugging Face to what timm calls ``pretrained_cfg``."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "preprocessor_config.json"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""By the numbers of Pillow's filters, which ``resample`` holds."""


def preprocessing_beside(source: str) -> dict[str, Any]:
    """The preprocessing in a model's local folder, or in the cache of the hub; empty where there is none."""
    if not source:
        return {}
    file = Path(source).expanduser() / FILE
    if not file.is_file():
        cached = _cached(source)
        if cached is None:
            return {}
        file = Path(cached)
    return preprocessing(json.loads(file.read_text(encoding="utf-8")))


def _cached(source: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, FILE) if HUB_NAME.fullmatch(source) else None
    return found if isinstance(found, str) else None


def fetch_preprocessing(source: str) -> None:
    """Bring the preprocessing of a model of the hub into the cache, if it has one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if HUB_NAME.fullmatch(source) and not Path(source).is_dir():
        with suppress(EntryNotFoundError):
            hf_hub_download(source, FILE)


def preprocessing(found: Mapping[str, Any]) -> dict[str, Any]:
    """Size, crop, interpolation and normalisation, by timm's names.

    Parameters
    ----------
    found : mapping
        As in ``preprocessor_config.json``: ``size`` (a number, ``height`` and ``width``, or ``shortest_edge``),
        ``crop_size``, ``do_resize``, ``do_center_crop``, ``do_rescale``, ``rescale_factor``, ``do_normalize``,
        ``image_mean``, ``image_std`` and ``resample``.

    Returns
    -------
    dict
        ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean`` and ``std``, as far as they are given.

    Examples
    --------
    >>> preprocessing({"size": {"shortest_edge": 256}, "crop_size": 224, "image_mean": [0.5], "image_std": [0.5]})["crop_pct"]
    0.875
    """
    out: dict[str, Any] = {}
    squash, resized = _resized(found.get("size"))
    cropped = _height_width(found.get("crop_size")) if found.get("do_center_crop", "crop_size" in found) else None
    target = cropped or resized
    if target is not None:
        out["input_size"] = (3, *target)
        out["crop_mode"] = "squash" if squash else "center"
        out["crop_pct"] = _crop_share(target[0], (resized or target)[0])
    if found.get("resample") in INTERPOLATIONS:
        out["interpolation"] = INTERPOLATIONS[found["resample"]]
    if found.get("image_mean") is None or found.get("image_std") is None:
        return out
    # Of pixels in 0..1; another factor than 1/255 is taken into mean and standard deviation.
    scale = 255 * float(found.get("rescale_factor", 1 / 255)) if found.get("do_rescale", True) else 255.0
    normalised = found.get("do_normalize", True)
    mean, std = (found["image_mean"], found["image_std"]) if normalised else ([0.0] * 3, [1.0] * 3)
    out["mean"] = tuple(float(value) / scale for value in mean)
    out["std"] = tuple(float(value) / scale for value in std)
    return out


def _resized(size: Any) -> tuple[bool, tuple[int, int] | None]:
    """Whether both sides are resized for themselves, and to which height and width (or shorter side)."""
    if isinstance(size, dict) and "shortest_edge" in size:
        return False, (int(size["shortest_edge"]), int(size["shortest_edge"]))
    return True, _height_width(size)


def _height_width(size: Any) -> tuple[int, int] | None:
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
        return (int(size["height"]), int(size["width"])) if {"height", "width"} <= set(size) else None
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (int(size), int(size)) if isinstance(size, (int, float)) else None


def _crop_share(cropped: int, resized: int) -> float:
    """The share of the resized picture that the crop keeps, such that timm resizes to just that size."""
    share = cropped / resized
    return share if math.floor(cropped / share) == resized else cropped / (resized + 0.5)
