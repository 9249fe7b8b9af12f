"""Selection of tokens, blocks and heads, validated in the same way for all interventions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.masks import as_array

if TYPE_CHECKING:
    from classspace_widgets.models import Adapter

Tokens = tuple[int, ...]
Box = tuple[int, int, int, int]
Mask = tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model, which interventions are checked against.

    Made by `Sizes.of`.

    Attributes
    ----------
    blocks, heads, tokens, prefix : int
        L, H, T and the number of prefix tokens.
    grid : tuple of int
        Rows and columns of image tokens.
    classes : int
        C.
    cls : bool
        Whether the first token is [CLS]; it may be a register instead.
    width : int
        D; 0 where it is not known, and not checked.
    """

    blocks: int
    heads: int
    tokens: int
    prefix: int
    grid: tuple[int, int]
    classes: int
    cls: bool = True
    width: int = 0

    @classmethod
    def of(cls, adapter: Adapter) -> Sizes:
        """Sizes of an adapted model at its default input size."""
        prefix, (rows, columns) = len(adapter.prefix), adapter.grid
        return cls(
            blocks=len(adapter.blocks),
            heads=adapter.heads,
            tokens=prefix + rows * columns,
            prefix=prefix,
            grid=(rows, columns),
            classes=int(adapter.embedding.shape[0]),
            cls=adapter.prefix[:1] == ("[CLS]",),
            width=adapter.width,
        )

    @property
    def image_tokens(self) -> range:
        """Indices of the image tokens."""
        return range(self.prefix, self.tokens)


def as_indices(value: Any, name: str, *, low: int = 0) -> Tokens | None:
    """A sorted tuple of distinct integers from an int or an iterable of them; None, for all, stays None."""
    if value is None:
        return None
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        value = (value,)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an integer, a sequence of integers or None, got {value!r}")
    items = list(value)
    if any(isinstance(i, bool) or int(i) != i for i in items):
        raise TypeError(f"{name} must be integers, got {items!r}; for a boolean grid use mask=")
    indices = tuple(sorted({int(i) for i in items}))
    if not indices:
        raise ValueError(f"{name} is empty: choose at least one, or None for all")
    if indices[0] < low:
        raise ValueError(f"{name} must be at least {low}, got {indices[0]}")
    return indices


def as_mask(value: Any, objects: Any = None) -> Mask | None:
    """A boolean mask ``[rows, columns]`` as nested tuples; accepts anything that numpy reads as two-dimensional.

    True where the mask is not 0, or where it is the number of one of ``objects``.
    """
    if value is None:
        return None
    array = as_array(value)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"mask must have shape [rows, columns] or [height, width], got {array.shape}")
    chosen = as_indices(objects, "objects", low=1)
    if chosen is not None:
        there = [int(n) for n in np.unique(array) if n > 0 and float(n).is_integer()]
        if missing := [n for n in chosen if n not in there]:
            known = ", ".join(map(str, there[:10])) or "none"
            raise ValueError(f"objects must be numbers that occur in the mask ({known}), got {missing}")
        array = np.isin(array, chosen)
    return tuple(tuple(bool(cell) for cell in row) for row in array)


def as_box(value: Any) -> Box | None:
    """A box ``(row0, column0, row1, column1)`` of image tokens, ends excluded."""
    if value is None:
        return None
    box = tuple(int(v) for v in value)
    if len(box) != 4 or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
        raise ValueError(
            f"box must be (row0, column0, row1, column1) with row0 < row1 and column0 < column1, got {box}"
        )
    return box[0], box[1], box[2], box[3]


def grid_mask(mask: Any, grid: tuple[int, int], *, coverage: float = 0.5) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Reduce an object mask to the patch grid.

    Parameters
    ----------
    mask : array_like [rows, columns] or [height, width]
        Of the grid's shape, or of any picture size; non-zero is inside.
    grid : tuple of int
        Rows and columns of image tokens.
    coverage : float
        Share of a patch that the object must cover for its token to count as inside.

    Returns
    -------
    ndarray [rows, columns], bool

    Raises
    ------
    ValueError
        If the mask is smaller than the grid.

    Examples
    --------
    >>> grid_mask(np.tri(96), (3, 3)).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    inside = np.asarray(mask) != 0
    if inside.shape == tuple(grid):
        return np.asarray(inside, dtype=bool)
    (height, width), (rows, columns) = inside.shape, grid
    if height < rows or width < columns:
        raise ValueError(f"mask must have the grid's shape {tuple(grid)} or a larger picture's, got {inside.shape}")
    # An integral image gives every patch's share, so sizes need not be multiples of the grid.
    total = np.pad(inside.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y = np.round(np.linspace(0, height, rows + 1)).astype(int)
    x = np.round(np.linspace(0, width, columns + 1)).astype(int)
    counts = total[y[1:]][:, x[1:]] - total[y[:-1]][:, x[1:]] - total[y[1:]][:, x[:-1]] + total[y[:-1]][:, x[:-1]]
    return np.asarray(counts >= coverage * np.outer(np.diff(y), np.diff(x)) - 1e-9, dtype=bool)


def select_tokens(
    sizes: Sizes, *, tokens: Tokens | None, box: Box | None, mask: Mask | None, outside: bool, what: str
) -> Tokens:
    """Indices of the chosen tokens, checked against the model's sizes."""
    if tokens is not None:
        check_tokens(tokens, sizes, what)
        chosen = set(tokens)
    else:
        rows, columns = sizes.grid
        if box is not None:
            if box[2] > rows or box[3] > columns:
                raise ValueError(f"{what}: box {box} does not fit the grid of {rows} x {columns} image tokens")
            inside = np.zeros(sizes.grid, bool)
            inside[box[0] : box[2], box[1] : box[3]] = True
        else:
            inside = grid_mask(mask, sizes.grid)
        chosen = {int(i) + sizes.prefix for i in np.flatnonzero(inside)}
    if outside:
        chosen = set(sizes.image_tokens) - chosen
    if not chosen:
        raise ValueError(f"{what}: no token is chosen; paint or list at least one")
    return tuple(sorted(chosen))


def check_tokens(tokens: Iterable[int], sizes: Sizes, what: str) -> None:
    """Raise ``ValueError`` if a token does not exist."""
    bad = [t for t in tokens if not 0 <= t < sizes.tokens]
    if bad:
        raise ValueError(
            f"{what}: tokens must be in 0..{sizes.tokens - 1} ({sizes.prefix} prefix tokens, then "
            f"{sizes.grid[0]} x {sizes.grid[1]} image tokens), got {bad[:5]}"
        )


def select_blocks(blocks: Tokens | None, sizes: Sizes, what: str) -> Sequence[int]:
    """Checked block numbers 1..L; None for all."""
    if blocks is None:
        return range(1, sizes.blocks + 1)
    bad = [b for b in blocks if not 1 <= b <= sizes.blocks]
    if bad:
        raise ValueError(f"{what}: blocks must be in 1..{sizes.blocks}, got {bad[:5]}")
    return blocks


def select_heads(heads: Tokens | None, sizes: Sizes, what: str) -> Sequence[int]:
    """Checked head numbers 0..H-1; None for all."""
    if heads is None:
        return range(sizes.heads)
    bad = [h for h in heads if not 0 <= h < sizes.heads]
    if bad:
        raise ValueError(f"{what}: heads must be in 0..{sizes.heads - 1}, got {bad[:5]}")
    return heads
