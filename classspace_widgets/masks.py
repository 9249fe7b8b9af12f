"""Masks of objects: the values they may contain, and their reduction to a model's grid of patches."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

IGNORED = 255
"""Value of pixels that belong neither to the object nor to its context."""
# A mask with 255 and a value above 191, or with more than 64 values, is taken for a grey picture with soft edges:
# masks of real data sets number at most a few dozen objects, from 1 upwards.
_MAX_NUMBER = 191
_MAX_VALUES = 64


class DatasetError(ValueError):
    """The data set does not fit the model, or contradicts itself. The run stops: this is not one broken picture."""


def as_array(values: Any) -> Array:
    """A mask, or any other values, as an array: tensors of whatever device too."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def token_mask(mask: Array, grid: tuple[int, int], *, coverage: float = 0.5) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Reduce a picture's mask to its tokens.

    Parameters
    ----------
    mask : ndarray [height, width]
        Boolean, or whole numbers: 1 inside the object, 255 for pixels to ignore, anything else for context. In a mask of
        only 0 and 255 the object is 255, as picture editors write it.
    grid : tuple of int
        Rows and columns of image tokens.
    coverage : float
        Share of a patch that the object must cover, 0 to 1.

    Returns
    -------
    ndarray [P], int8
        1 class token, 0 context token, -1 neither.

    Raises
    ------
    DatasetError
        For a mask coarser than the grid, and for values that leave the object unclear: other numbers without 1,
        fractions, numbers below 0, grey edges.

    Examples
    --------
    >>> token_mask(np.tri(96), (3, 3))
    array([1, 0, 0, 1, 1, 0, 1, 1, 1], dtype=int8)
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise DatasetError(f"a mask must have shape [height, width], got {mask.shape}")
    if mask.shape[0] < grid[0] or mask.shape[1] < grid[1]:
        raise DatasetError(f"a mask must be at least as fine as the {grid[0]} x {grid[1]} patch grid, got {mask.shape}")
    return tokens_inside(binary_mask(mask), grid, coverage)


def tokens_inside(mask: Array, grid: tuple[int, int], coverage: float) -> np.ndarray[Any, np.dtype[np.int8]]:
    """`token_mask` for a mask from `binary_mask`, or a part of it."""
    inside, ignored = _shares(mask == 1, grid), _shares(mask == IGNORED, grid)
    tokens = np.where(inside >= coverage - 1e-9, 1, 0)
    return np.where(ignored > 0.5, -1, tokens).astype(np.int8).ravel()


def binary_mask(mask: Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """1 inside the object, 255 for pixels to ignore, 0 elsewhere; `token_mask` says which masks are accepted."""
    numbers = _numbers(mask)
    if numbers == [0, IGNORED]:
        return np.asarray(mask == IGNORED, np.uint8)
    others = [n for n in numbers if n != 0]
    if others and 1 not in others:
        which = others[0] if len(others) == 1 else "<the object's number>"
        raise DatasetError(
            f"a mask must mark its object with 1, but this one contains {', '.join(map(str, numbers[:6]))} and no 1; "
            f"pass mask == {which}, or no mask for a picture without its object"
        )
    known: Array = np.where(mask == 1, 1, np.where(mask == IGNORED, IGNORED, 0)).astype(np.uint8)
    return known


def object_numbers(mask: Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The number of the object at each pixel, 0 for context, of a mask of several objects.

    As in `binary_mask`, a mask of only 0 and 255 has one object; with other numbers, 255 marks pixels to ignore.
    """
    numbers = _numbers(mask)
    if set(numbers) <= {0, IGNORED}:
        return np.asarray(mask == IGNORED, np.uint8)
    if numbers[-1] > IGNORED:
        raise DatasetError(f"a mask must contain 0 for context and 1..254 for objects, got {numbers[-1]}")
    return np.where(mask == IGNORED, 0, mask).astype(np.uint8)


def _numbers(mask: Array) -> list[int]:
    """The distinct numbers in a mask; raises if it contains anything but numbers of objects."""
    if mask.dtype.kind == "b":
        return [int(value) for value in np.unique(mask)]
    if mask.dtype.kind not in "iuf":
        raise DatasetError(f"a mask must contain numbers or be boolean, got {mask.dtype}")
    values = np.unique(mask)
    if not np.array_equal(values, np.trunc(values)):  # True for NaN as well
        fraction = values[values != np.trunc(values)][0]
        raise DatasetError(f"a mask must contain whole numbers, got {fraction:.3g}; for probabilities pass mask > 0.5")
    numbers = [int(value) for value in values]
    if numbers and numbers[0] < 0:
        raise DatasetError(
            f"a mask must not contain {numbers[0]}; 255 marks pixels to ignore: np.where(mask < 0, 255, mask)"
        )
    grey = IGNORED in numbers and any(_MAX_NUMBER < n < IGNORED for n in numbers)
    if grey or len(numbers) > _MAX_VALUES:
        raise DatasetError(
            f"a mask contains {len(numbers)} different values up to {numbers[-1]}, as grey edges have; "
            "pass mask > 127, or 1 for the object and other whole numbers for the rest"
        )
    return numbers


def _shares(inside: Array, grid: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    edges = [np.round(np.linspace(0, n, k + 1)).astype(int) for n, k in zip(inside.shape, grid, strict=True)]
    total = np.add.reduceat(np.add.reduceat(inside.astype(np.int64), edges[0][:-1], axis=0), edges[1][:-1], axis=1)
    shares: np.ndarray[Any, np.dtype[np.float64]] = total / np.outer(np.diff(edges[0]), np.diff(edges[1]))
    return shares
