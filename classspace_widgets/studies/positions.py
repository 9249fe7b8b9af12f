"""The pictures that have been counted, as ranges of positions in the data: an array ``[n, 2]`` of starts and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Ranges = np.ndarray[Any, np.dtype[np.int64]]


class CountedTwiceError(ValueError):
    """A picture would be counted twice; ``position`` is the first such picture."""

    def __init__(self, position: int) -> None:
        super().__init__(f"picture {position} is counted twice")
        self.position = position


def as_ranges(positions: ArrayLike) -> Ranges:
    """Positions as sorted ranges; raises `CountedTwiceError` if one occurs twice."""
    ordered = np.sort(np.asarray(positions, np.int64))
    return joined(np.stack([ordered, ordered + 1], axis=1))


def joined(*several: Ranges) -> Ranges:
    """The union of ranges, sorted and with neighbours merged; raises `CountedTwiceError` if they overlap."""
    ranges = np.concatenate(several) if several else np.zeros((0, 2), np.int64)
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    overlap = np.flatnonzero(ranges[1:, 0] < ranges[:-1, 1])
    if len(overlap):
        raise CountedTwiceError(int(ranges[overlap[0] + 1, 0]))
    if len(ranges) == 0:
        return ranges
    cut = np.flatnonzero(ranges[1:, 0] != ranges[:-1, 1]) + 1
    starts, ends = np.concatenate([[0], cut]), np.concatenate([cut, [len(ranges)]]) - 1
    return np.stack([ranges[starts, 0], ranges[ends, 1]], axis=1)
