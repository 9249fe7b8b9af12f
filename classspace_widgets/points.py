"""The numbering of stream points and increments: what lies at place n of the residual stream.

A pass adds increments to the residual stream: ``x_0, a_1, m_1, ..., a_L, m_L`` (the embedding, then what each attention
and each MLP adds).  What can be read along the way are the stream points: the embedding, then for every block what
attention adds, the residual stream after it (mid), what the MLP adds, and the residual stream after that.  A block whose
attention and MLP act in parallel adds one increment, and has two points: what it adds, and the residual stream after it.

Every numbering in the package is taken from here; ``js/src/core/points.ts`` is its twin, held to it by a shared fixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from classspace_widgets.lookup import at_least, whole_number

__all__ = ["Point", "Points"]

SEQUENTIAL, PARALLEL = "sequential", "parallel"
LAYOUTS = (SEQUENTIAL, PARALLEL)
"""How a block computes: attention, then MLP; or both from the same input, added at once."""

SUBLAYERS = ("attention", "mlp")
"""The two parts of a sequential block, in order: each adds one increment."""

_ENDS = {
    SEQUENTIAL: {"attention": 1, "mid": 1, "mlp": 2, "residual": 2},
    PARALLEL: {"block": 1, "residual": 1},
}
"""The streams of a block in order, and which of the block's increments, counted from 1, each is or ends with."""

STREAMS = tuple(_ENDS[SEQUENTIAL])
"""The streams of a sequential block, in order."""

_SUMS = ("mid", "residual")
"""Streams that are the residual stream itself, a sum of increments; the others are single increments."""


class Point(NamedTuple):
    """A place to read: a stream at a block.

    Attributes
    ----------
    block : int
        0..L; block 0 has only the residual stream, which is the embedding.
    stream : str
        ``"attention"`` or ``"mlp"`` (what is added), ``"mid"`` or ``"residual"`` (the residual stream after it); of
        parallel blocks ``"block"`` or ``"residual"``.

    Examples
    --------
    >>> Point(3, "mlp").name
    'block 3 MLP'
    """

    block: int
    stream: str

    @property
    def name(self) -> str:
        """Such as ``"embedding"``, ``"block 3 attention"`` or ``"block 3 residual"``; ``"block 3"``: what a parallel one adds."""
        if self.block == 0 or self.stream == "block":
            return block_name(self.block)
        return f"{block_name(self.block)} {'MLP' if self.stream == 'mlp' else self.stream}"


@dataclass(frozen=True)
class Points(Sequence[Point]):
    """All stream points of a model, in the order in which a pass computes them: a sequence of `Point`.

    Parameters
    ----------
    n_blocks : int
        Number of blocks L.
    layout : str
        ``"sequential"`` (attention, then MLP) or ``"parallel"`` (both at once).
    mid : bool
        Whether the residual stream between attention and MLP is one of the points.

    Raises
    ------
    ValueError
        For an unknown layout, or a number of blocks below 0.

    Examples
    --------
    >>> points = Points(2)
    >>> len(points), points.number("mid", 1), points[-1]
    (9, 2, Point(block=2, stream='residual'))
    >>> points.n_increments, points.added(2).name
    (5, 'block 1 MLP')
    """

    n_blocks: int
    layout: str = SEQUENTIAL
    mid: bool = True

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {LAYOUTS}, got {self.layout!r}")
        at_least(self.n_blocks, "n_blocks", 0)

    @classmethod
    def of_increments(cls, count: int, layout: str = SEQUENTIAL) -> Points:
        """The points of a model with so many increments.

        Parameters
        ----------
        count : int
            Number of increments N, the embedding included.
        layout : str
            As in `Points`.

        Returns
        -------
        Points

        Raises
        ------
        ValueError
            Where the count is not an embedding and whole blocks.

        Examples
        --------
        >>> Points.of_increments(17).n_blocks
        8
        """
        per_block = cls(0, layout).per_block
        blocks, rest = divmod(count - 1, per_block)
        if count < 1 or rest:
            raise ValueError(
                f"expected the embedding and {per_block} increments for every block, got {count} increments"
            )
        return cls(blocks, layout)

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams of a block, in the order of their points."""
        return tuple(name for name in _ENDS[self.layout] if self.mid or name != "mid")

    @property
    def sublayers(self) -> tuple[str, ...]:
        """Names of the streams that are increments: ``("attention", "mlp")``, or ``("block",)``."""
        return tuple(name for name in self.streams if name not in _SUMS)

    @property
    def per_block(self) -> int:
        """Increments of a block: 2 (attention, MLP), or 1 where they act in parallel."""
        return len(self.sublayers)

    @property
    def n_increments(self) -> int:
        """Number of increments N: the embedding, and `per_block` for every block."""
        return 1 + self.per_block * self.n_blocks

    @property
    def blocks(self) -> range:
        """Numbers of the blocks, ``1..L``."""
        return range(1, self.n_blocks + 1)

    def __len__(self) -> int:
        """Number of stream points S."""
        return 1 + len(self.streams) * self.n_blocks

    @overload
    def __getitem__(self, number: int) -> Point: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[Point, ...]: ...

    def __getitem__(self, number: int | slice) -> Point | tuple[Point, ...]:
        """The point of a number in ``0..S-1`` (negative ones count from the end), or the points of a slice."""
        if isinstance(number, slice):
            return tuple(self[n] for n in range(*number.indices(len(self))))
        at = number + len(self) if number < 0 else number
        if not 0 <= at < len(self):
            raise IndexError(f"number of a stream point must be in 0..{len(self) - 1}, got {number}")
        if at == 0:
            return Point(0, "residual")
        block, place = divmod(at - 1, len(self.streams))
        return Point(block + 1, self.streams[place])

    def __iter__(self) -> Iterator[Point]:
        return (self[n] for n in range(len(self)))

    def number(self, stream: str, block: int) -> int:
        """Number of a stream point, in ``0..S-1``.

        Raises
        ------
        TypeError, ValueError
            For a stream or block that the model does not have.
        """
        block = self.check(stream, block)
        return 0 if block == 0 else len(self.streams) * (block - 1) + 1 + self.streams.index(stream)

    def check(self, stream: str, block: int) -> int:
        """The block's number, if the model has the stream there; raises as `number` does."""
        if stream not in self.streams:
            hint = (
                "; attention and MLP of this model act in parallel" if stream in STREAMS and not self.sequential else ""
            )
            raise ValueError(f"stream must be one of {self.streams}, got {stream!r}{hint}")
        return whole_number(block, f"block of the {stream} stream", self.first_block(stream), self.n_blocks)

    @property
    def sequential(self) -> bool:
        """Whether attention and MLP of a block add one after the other."""
        return self.layout == SEQUENTIAL

    def first_block(self, stream: str) -> int:
        """First block that has a stream: 0, the embedding, for the residual stream; 1 for all others."""
        return 0 if stream == "residual" else 1

    def of_streams(self, streams: str | Iterable[str]) -> list[int]:
        """Numbers of all points of one or several streams, in order; the embedding belongs to the residual stream.

        Raises
        ------
        ValueError
            For an unknown stream, or none at all.
        """
        wanted = [streams] if isinstance(streams, str) else list(streams)
        if not wanted or not set(wanted) <= set(self.streams):
            raise ValueError(f"streams must be some of {self.streams}, got {wanted}")
        return [n for n, point in enumerate(self) if point.stream in wanted]

    def of_block(self, block: int) -> range:
        """Numbers of all points of a block; block 0 has only the embedding."""
        last = self.number("residual", block)
        return range(last - len(self.streams) + 1, last + 1) if block else range(1)

    def is_sum(self, stream: str) -> bool:
        """Whether the points of a stream are sums of increments (the residual stream), not single ones."""
        return stream in _SUMS

    def increment(self, stream: str, block: int) -> int:
        """Number of the increment that a point is, or of the last one that it is the sum of, in ``0..N-1``.

        Raises
        ------
        TypeError, ValueError
            For a stream or block that the model does not have.
        """
        return self.per_block * (self.check(stream, block) - 1) + _ENDS[self.layout][stream]

    def added(self, increment: int) -> Point:
        """The point that an increment is by itself; the embedding for the first."""
        if not 0 <= increment < self.n_increments:
            raise IndexError(f"number of an increment must be in 0..{self.n_increments - 1}, got {increment}")
        if increment == 0:
            return self[0]
        block, place = divmod(increment - 1, self.per_block)
        return Point(block + 1, self.sublayers[place])

    def of_increment(self, increment: int) -> tuple[int, ...]:
        """Numbers of the points that an increment brings: its own, then that of the residual stream after it.

        One number for the embedding, which is the residual stream, and for attention where `mid` is not among the points.
        """
        numbers = self.of_block(self.added(increment).block)
        return tuple(n for n in numbers if self.increment(self[n].stream, self[n].block) == increment)

    def block_input(self, increment: int) -> int:
        """Number of the last increment before the block of an increment: the sum up to it is what the block reads."""
        return self.per_block * max(0, self.added(increment).block - 1)


def block_name(block: int) -> str:
    """What the place after a block is called: ``"embedding"`` for block 0, else ``"block 3"``.

    Examples
    --------
    >>> block_name(0), block_name(3)
    ('embedding', 'block 3')
    """
    return f"block {block}" if block else "embedding"
