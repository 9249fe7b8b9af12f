"""From images of any form to a model's input, and pictures of what the model will see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.images.ready import Prepared, as_batch, check_values, checked

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.images.preprocessing import Preprocessing
    from classspace_widgets.images.read import Pixels


def prepare(images: Any, how: Preprocessing) -> tuple[Tensor, Pixels | None, tuple[str, ...]]:
    """Input of a model from images of any form, and pictures of what it will see.

    Float tensors ``[3, height, width]`` or ``[B, 3, height, width]`` are taken as input that is ready (resized and
    normalised); uint8 tensors of these shapes, and everything else, are pictures and are preprocessed. In a list each
    means what it means by itself.

    Parameters
    ----------
    images : path, bytes, file, PIL image, ndarray, tensor, or list (or iterator) of them
    how : Preprocessing

    Returns
    -------
    tuple
        Pixels ``[B, 3, height, width]``, float32; pictures ``[B, height, width, 3]``, uint8 (None of `Prepared` input);
        names of the B images.

    Warns
    -----
    UserWarning
        For ready tensors that look like pictures that were not normalised, and pictures that use a sliver of their range.

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> pixels, pictures, names = prepare(np.zeros((48, 64, 3), np.uint8), space.preprocessing)
    >>> pixels.shape, pictures.shape
    (torch.Size([1, 3, 96, 96]), (1, 96, 96, 3))
    """
    pixels, names = prepare_input(images, how)
    return pixels, None if isinstance(images, Prepared) else how.pictures(pixels.float()), names


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
    if isinstance(images, Prepared):
        return how.ready(images), ("",) * len(images.pixels)
    parts: list[Tensor] = []
    ready: list[Tensor] = []
    names: list[str] = []
    for one in _listed(images):
        if isinstance(one, torch.Tensor) and one.dtype != torch.uint8:
            parts.append(checked(one, how))
            ready.append(parts[-1])
            names += [""] * len(parts[-1])
            continue
        for picture in _as_arrays(one) if isinstance(one, torch.Tensor) else [one]:
            tensor, name = how.pixels(picture)
            parts.append(tensor.unsqueeze(0))
            names.append(name)
    check_values(ready, how)
    sizes = {tuple(part.shape[1:]) for part in parts}
    if len(sizes) > 1:
        raise ValueError(f"tensors and pictures in a list must come to one shape, got {sorted(sizes)}")
    return torch.cat([part.to(parts[0].device) for part in parts]), tuple(names)


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
