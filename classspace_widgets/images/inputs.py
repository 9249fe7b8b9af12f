"""From images of any form to a model's input, and pictures of what the model will see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from classspace_widgets.images.crop import bounded, checked_crop
from classspace_widgets.images.ready import Prepared, as_batch, check_values, checked

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.images.crop import Crop, Photograph
    from classspace_widgets.images.preprocessing import Preprocessing
    from classspace_widgets.images.read import Pixels


class Shown(NamedTuple):
    """Input of a model, and what of it is shown.

    Attributes
    ----------
    pixels : Tensor [B, 3, height, width], float32
    pictures : ndarray [B, height, width, 3], uint8, or None
        What the model will see; None of `Prepared` input.
    names : tuple of str
        Of the B images.
    photographs : tuple of Photograph or None
        The B pictures as they were given; None for each that came as ready input.
    """

    pixels: Tensor
    pictures: Pixels | None
    names: tuple[str, ...]
    photographs: tuple[Photograph | None, ...]


def prepare(images: Any, how: Preprocessing, *, crop: Crop | None = None) -> Shown:
    """Input of a model from images of any form, and pictures of what it will see.

    Float tensors ``[3, height, width]`` or ``[B, 3, height, width]`` are taken as input that is ready (resized and
    normalised); uint8 tensors of these shapes, and everything else, are pictures and are preprocessed. In a list each
    means what it means by itself.

    Parameters
    ----------
    images : path, bytes, file, PIL image, ndarray, tensor, or list (or iterator) of them
    how : Preprocessing
    crop : tuple of float, optional
        Left, top, right, bottom of the part to look at, as shares of the picture's width and height, instead of the
        model's own centre crop. The model sees all of its shorter side.

    Returns
    -------
    Shown
        ``pixels``, ``pictures``, ``names``, ``photographs``.

    Raises
    ------
    ValueError
        For a crop that is not inside the picture, or a crop of ready input.

    Warns
    -----
    UserWarning
        For ready tensors that look like pictures that were not normalised, and pictures that use a sliver of their range.

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> shown = prepare(np.zeros((48, 64, 3), np.uint8), space.preprocessing)
    >>> shown.pixels.shape, shown.pictures.shape
    (torch.Size([1, 3, 96, 96]), (1, 96, 96, 3))
    """
    pixels, names, photographs = _prepared(images, how, None if crop is None else checked_crop(crop))
    pictures = None if isinstance(images, Prepared) else how.pictures(pixels.float())
    return Shown(pixels, pictures, names, bounded(photographs))


def prepare_input(images: Any, how: Preprocessing) -> tuple[Tensor, tuple[str, ...]]:
    """`prepare` without pictures for display: pixels ``[B, 3, height, width]`` and names of the B images.

    Parameters
    ----------
    images, how
        As in `prepare`.

    Returns
    -------
    tuple of Tensor [B, 3, height, width] and tuple of str

    Examples
    --------
    >>> pixels, names = prepare_input(["tests/none.png"], ClassSpace.bundled().preprocessing)
    Traceback (most recent call last):
    FileNotFoundError: there is no image file at tests/none.png
    """
    return _prepared(images, how, None)[:2]


def _prepared(
    images: Any, how: Preprocessing, crop: Crop | None
) -> tuple[Tensor, tuple[str, ...], list[Photograph | None]]:
    if isinstance(images, Prepared):
        count = len(images.pixels)
        return how.ready(images), ("",) * count, [None] * count
    parts: list[Tensor] = []
    ready: list[Tensor] = []
    names: list[str] = []
    photographs: list[Photograph | None] = []
    for one in _listed(images):
        if isinstance(one, torch.Tensor) and one.dtype != torch.uint8:
            parts.append(checked(one, how))
            ready.append(parts[-1])
            names += [""] * len(parts[-1])
            photographs += [None] * len(parts[-1])
            continue
        for picture in _as_arrays(one) if isinstance(one, torch.Tensor) else [one]:
            tensor, name, photograph = how.pixels(picture, crop)
            parts.append(tensor.unsqueeze(0))
            names.append(name)
            photographs.append(photograph)
    if crop is not None and ready:
        raise ValueError(
            "ready input cannot be cropped, it has the model's size already; give pictures, or leave crop out"
        )
    check_values(ready, how)
    sizes = {tuple(part.shape[1:]) for part in parts}
    if len(sizes) > 1:
        raise ValueError(f"tensors and pictures in a list must come to one shape, got {sorted(sizes)}")
    return torch.cat([part.to(parts[0].device) for part in parts]), tuple(names), photographs


def _listed(images: Any) -> list[Any]:
    """Images one by one (tensors may hold several)."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        if images.shape[3] not in (1, 3, 4):
            hint = "; try array.transpose(0, 2, 3, 1)" if images.shape[1] in (1, 3, 4) else ""
            raise ValueError(
                f"an array of images must have shape [B, height, width, 1, 3 or 4], got {images.shape}{hint}"
            )
        images = list(images)
    elif isinstance(images, Iterator) and not hasattr(images, "read"):
        images = list(images)
    listed = list(images) if isinstance(images, (list, tuple)) else [images]
    if not listed:
        raise ValueError("expected at least one image, got none: the list is empty")
    return listed


def _as_arrays(pictures: Tensor) -> list[Pixels]:
    """The pictures of a uint8 tensor as arrays ``[height, width, channels]``."""
    batch = as_batch(pictures)
    if batch.shape[1] not in (1, 3, 4) or len(batch) < 1:
        raise ValueError(f"a uint8 tensor must have shape [B, 3, height, width], got {tuple(pictures.shape)}")
    return [one.permute(1, 2, 0).cpu().numpy() for one in batch]
