"""Readings of every stream, computed inside the pass: only results are kept, so data sets of any size can be read.

The lens is linear up to its scale, so each increment is projected once and residual readings are running sums; ranks
and top classes need no division by the scale, which enters as ``raw + sigma * offset`` instead.

A hook hands every increment to a reader as soon as it is computed.  The reader lets a few of them wait, for one larger
product, and goes through them in pieces of rows that stay in a CPU's cache.  On a GPU it lets as many wait as some memory
holds, and reads them all at once: of few pictures, launching a kernel takes longer than running it.  Everything is written
into buffers that are made at the first increment.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.lens.projection import Projection
from classspace_widgets.lens.ranking import Found, Ranker, found_classes
from classspace_widgets.lookup import chosen_classes, whole_number
from classspace_widgets.metrics.identifiability import identifiability
from classspace_widgets.models.device import to_device
from classspace_widgets.models.fingerprint import known_fingerprint
from classspace_widgets.space.describe import readings_html
from classspace_widgets.trace.hooks import evaluating, on_increments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from classspace_widgets.lens import ClassLens, FittedLens
    from classspace_widgets.points import Points
    from classspace_widgets.space.space import ClassSpace

__all__ = ["StreamReadings", "stream_readings"]

CPU_ROWS = 400
"""Rows (tokens of images) of an increment read at a time on a CPU, so that what is computed on stays in its cache."""

BATCHED = 4
"""Increments projected together, on a GPU at least so many."""

GPU_BYTES = 256 * 2**20
"""Of scores: up to so many, increments are read together on a GPU."""

PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StreamReadings:
    """Class readings of every stream point of every token.

    Which stream point has which number on axis S, ``points`` tells: ``found.ranks[found.points.number("residual", 3)]``.

    Made by `stream_readings`.

    Attributes
    ----------
    classes : Tensor [B, K]
        The classes read, of every image.
    logits : Tensor [S, B, T, K], float32
        Class logits.
    ranks : Tensor [S, B, T, K], int32
        Class ranks: how many classes have a strictly larger logit; 0 is best (-1 where the pass gave NaN).
    top_classes, top_logits : Tensor [S, B, T, k]
        The k best classes, best first.
    output : Tensor [B, C]
        The model's own logits.
    n_classes : int
        C.
    points : Points
        The S stream points.
    class_names : tuple of str
        Names of all C classes.
    """

    __repr__ = short_repr
    _repr_html_ = readings_html

    classes: Tensor
    logits: Tensor
    ranks: Tensor
    top_classes: Tensor
    top_logits: Tensor
    output: Tensor
    n_classes: int
    points: Points
    class_names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def n_blocks(self) -> int:
        """Number of blocks L."""
        return self.points.n_blocks

    def identifiability(self) -> Tensor:
        """Class identifiability ``1 - rank / C``, ``[S, B, T, K]``, in [1/C, 1]."""
        return identifiability(self.ranks, self.n_classes)


def stream_readings(
    space: ClassSpace,
    images: Any,
    classes: Any = None,
    *,
    labels: Any = None,
    k: int = 5,
    precision: str = "float32",
    chunk: int | None = None,
    lens: FittedLens | None = None,
) -> StreamReadings:
    """Class logit, exact rank and top classes of every stream, block and token, in one pass.

    Parameters
    ----------
    space : ClassSpace
    images : Any
        As in `ClassSpace.trace`.
    classes : class, sequence of K, or [B, K]
        Classes to read, by index or name: K of all images, or (in two dimensions) K of each image.
    labels : sequence of B classes, optional
        Instead of ``classes``: each image's own class (K = 1).  A tensor of class numbers on a GPU is not looked at, because
        that would be to wait for it: for a number that is no class, logits are NaN and ranks -1.
    k : int
        How many top classes.
    precision : str
        Of the projection: ``"float32"`` (ranks exact up to float32 rounding), or ``"tf32"`` (CUDA), ``"bfloat16"``,
        ``"float16"``, which are faster on some hardware and approximate: benchmarks/RESULTS.md gives the rank error.
    chunk : int, optional
        Images per forward pass.
    lens : FittedLens, optional
        Read through this lens, of all classes and in float32, instead of the logit lens; where it has no map, scores are NaN,
        ranks and top classes -1.

    Returns
    -------
    StreamReadings

    Raises
    ------
    ValueError
        For an unknown class or precision, or a lens of another model or of some classes only.

    Examples
    --------
    >>> from classspace_widgets import ClassSpace
    >>> space = ClassSpace.from_timm("test_vit", pretrained=False)
    >>> found = stream_readings(space, torch.zeros(2, 3, 160, 160), ["goldfish", 3])
    >>> found.ranks.shape  # S = 4 L + 1 points, B, T, K
    torch.Size([25, 2, 101, 2])
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {tuple(PRECISIONS)}, got {precision!r}")
    from classspace_widgets.space.fitted_readings import read_fitted
    from classspace_widgets.space.pooled_readings import read_pooled

    k = whole_number(k, "k", 1, space.n_classes)
    pixels = space.pixels(images)
    given = _unseen(classes, labels, len(pixels))
    wanted = _wanted(space, classes, labels, len(pixels)) if given is None else given.clamp(0, space.n_classes - 1)
    if lens is not None:
        lens.require_complete("stream readings")
        lens.check(space.class_names, space.adapter.prefix, space.points, known_fingerprint(space.model))
        lens = lens.to(space.device)

    def run(some: Tensor) -> StreamReadings:
        first = sum(part.output.shape[0] for part in done)
        mine = wanted[first : first + len(some)]
        if lens is not None:
            done.append(read_fitted(space, lens, some, mine, k))
        elif space.adapter.linear:
            done.append(read_pass(space, some, Reader(space, mine, k, precision), precision))
        else:
            done.append(read_pooled(space, some, mine, k))
        return done[-1]

    done: list[StreamReadings] = []
    found = _joined(space.in_chunks(pixels, run, chunk))
    return found if given is None else _without(found, given)


def _wanted(space: ClassSpace, classes: Any, labels: Any, images: int) -> Tensor:
    """Class indices ``[B, K]``."""
    found = chosen_classes(space.class_names, classes, labels=labels, images=images)
    if found is None:
        raise ValueError(
            "no class to read: give classes= (the same of all images, or [B, K]) or labels= (one of each image)"
        )
    wanted = to_device(torch.tensor(found, dtype=torch.long, device="cpu"), space.device)
    return wanted if wanted.dim() == 2 else wanted.expand(images, -1)


def _unseen(classes: Any, labels: Any, images: int) -> Tensor | None:
    """Class numbers ``[B, K]`` that are a tensor of that shape on a GPU already; None for all that can be looked at."""
    given = classes if labels is None else labels
    if not isinstance(given, torch.Tensor) or (classes is not None and labels is not None):
        return None
    if given.device.type == "cpu" or given.dtype not in (torch.int64, torch.int32):
        return None
    per_image = given.unsqueeze(-1) if labels is not None else given if given.dim() == 2 else given.expand(images, -1)
    fits = per_image.dim() == 2 and per_image.shape[0] == images and per_image.shape[1] > 0
    return per_image.long() if fits else None


def _without(found: StreamReadings, given: Tensor) -> StreamReadings:
    """Readings of given numbers ``[B, K]``, of which some may be no classes: NaN and -1 there."""
    nothing = ((given < 0) | (given >= found.n_classes))[None, :, None, :]
    logits, ranks = found.logits.masked_fill(nothing, torch.nan), found.ranks.masked_fill(nothing, -1)
    return replace(found, classes=given, logits=logits, ranks=ranks)


def read_pass(space: ClassSpace, pixels: Tensor, reader: Reader, precision: str = "float32") -> StreamReadings:
    """Everything that a reader reads in one pass over pictures ``[B, 3, height, width]``."""
    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_tensor_cores(precision == "tf32"))
        on_increments(space.adapter, stack, reader.take)
        output = space.model(pixels)
        if not space.adapter.own_output:
            output = pixels.new_zeros(len(pixels), 0)
        return reader.result(output)


class Reader:
    """Reads increments as they come, several at a time, and keeps only results."""

    def __init__(self, space: ClassSpace, classes: Tensor, k: int, precision: str) -> None:
        self.lens: ClassLens = space.lens
        self.classes, self.k, self.count = classes, k, space.n_classes
        self.points, self.class_names = space.points, tuple(space.class_names)
        self.precision = precision
        self.waiting: list[Tensor] = []
        self.n = 0

    @cached_property
    def project(self) -> Projection:
        """The logit lens as a product."""
        return Projection.of(self.lens, PRECISIONS[self.precision])

    @property
    def offset(self) -> Tensor:
        """Offset ``[C']`` of every score; buffers are as wide and as precise."""
        return self.project.offset

    def take(self, increment: Tensor) -> None:
        """Read one increment ``[B, T, D]``, and the residual stream after it."""
        if self.n == 0:
            self._allocate(increment)
        self.waiting.append(increment.reshape(-1, increment.shape[-1]))
        self.n += 1
        # The embedding is read by itself; then small products are waited with, for a larger one.
        if self.n == 1 or len(self.waiting) == self.several:
            self._read()

    def _allocate(self, increment: Tensor) -> None:
        count, width, self.tokens = increment.shape[:2].numel(), increment.shape[2], increment.shape[1]
        device, offset = increment.device, self.offset
        self.in_pieces = _reads_in_pieces(device)
        self.step = math.ceil(count / math.ceil(count / CPU_ROWS)) if self.in_pieces else count
        held = GPU_BYTES // (2 * count * len(offset) * offset.element_size())
        self.several = BATCHED if self.in_pieces else max(BATCHED, min(held, self.points.n_increments - 1))
        self.wanted = self.classes.repeat_interleave(self.tokens, dim=0)
        kept = self.wanted.shape[1]

        def buffer(*shape: int, dtype: torch.dtype = offset.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.total, self.raw = buffer(count, width).zero_(), buffer(count, len(offset)).zero_()
        self.rows = buffer(self.several * self.step * width)
        self.scores = buffer(2 * self.several * self.step * len(offset))
        self.ranker = Ranker(2 * self.several * self.step, self.count, self.k, dtype=offset.dtype, device=device)
        shape = (len(self.points), count)
        self.sigma, self.target = buffer(*shape), buffer(*shape, kept)
        self.rank = buffer(*shape, kept, dtype=torch.int32)
        self.top = buffer(*shape, self.k)
        # Small numbers, unless many classes are looked through directly or many of them are wanted.
        largest = len(offset) if self.ranker.direct else self.k**2
        narrow = torch.int16 if largest < 2**15 else torch.int32
        self.places = [buffer(*shape, self.k, dtype=narrow) for _ in range(1 if self.ranker.direct else 3)]

    def _read(self) -> None:
        """Everything of the increments that wait, piece by piece of the rows."""
        if self.in_pieces:
            for start in range(0, len(self.total), self.step):
                self._piece(slice(start, min(start + self.step, len(self.total))))
        else:
            self._at_once()
        self.waiting.clear()

    def _piece(self, part: slice) -> None:
        size, several = part.stop - part.start, len(self.waiting)
        total, raw, offset = self.total[part], self.raw[part], self.offset
        # Of several increments first their own scores, then those of the residual stream after each; the embedding is
        # the residual stream, one point instead of two.
        first = self.n - several
        kinds = 1 if first == 0 else 2
        sigma = self.sigma.new_empty((kinds, several, size))
        rows = self.rows[: several * size * total.shape[1]].view(several, size, -1)
        for i, increment in enumerate(self.waiting):
            rows[i] = increment[part]
            total += rows[i]
            sigma[-1, i] = self.lens.quick_sigma(total)
        if kinds == 2:
            sigma[0] = self.lens.quick_sigma(rows)
        added = self.project(rows.view(several * size, -1)).view(several, size, -1)
        scores = self.scores[: kinds * several * size * len(offset)].view(kinds, several, size, -1)
        for i in range(several):
            raw += added[i]
            torch.addr(raw, sigma[-1, i], offset, out=scores[-1, i])
        if kinds == 2:
            torch.addr(added.view(several * size, -1), sigma[0].view(-1), offset, out=scores[0].flatten(0, 1))
        self._take_in(first, part, sigma, scores)

    def _at_once(self) -> None:
        """What `_piece` does, of all rows and in few kernels; sums are taken in the same order."""
        size, several, offset = len(self.total), len(self.waiting), self.offset
        first = self.n - several
        kinds = 1 if first == 0 else 2
        sigma = self.sigma.new_empty((kinds, several, size))
        scores = self.scores[: kinds * several * size * len(offset)].view(kinds, several, size, -1)
        rows = self.rows[: several * size * self.total.shape[1]].view(several, size, -1)
        rows.copy_(torch.stack(self.waiting))
        added = self.project(rows.view(several * size, -1)).view(several, size, -1)
        if kinds == 2:
            sigma[0] = self.lens.quick_sigma(rows)
            torch.addcmul(added, sigma[0].unsqueeze(-1), offset, out=scores[0])
        rows[0] += self.total
        totals = rows.cumsum(0)
        self.total.copy_(totals[-1])
        added[0] += self.raw
        torch.cumsum(added, 0, out=scores[-1])
        self.raw.copy_(scores[-1, -1])
        sigma[-1] = self.lens.quick_sigma(totals)
        scores[-1].addcmul_(sigma[-1].unsqueeze(-1), offset)
        self._take_in(first, slice(0, size), sigma, scores)

    def _take_in(self, first: int, part: slice, sigma: Tensor, scores: Tensor) -> None:
        """Keep what follows from scores of the increments from ``first`` on."""
        # What increments bring stands together, each one's own point before that of the residual stream after it.
        points = slice(self.points.of_increment(first)[0], self.points.of_increment(self.n - 1)[-1] + 1)
        self._keep(self.sigma, points, part, sigma)
        self._rank(scores.flatten(0, 2), points, part)

    def _rank(self, scores: Tensor, points: slice, part: slice) -> None:
        target = scores.gather(1, self.wanted[part].repeat(points.stop - points.start, 1))
        self._keep(self.target, points, part, target)
        for i in range(target.shape[1]):
            self._keep(self.rank[..., i], points, part, self.ranker.count_above(scores, target[:, i : i + 1]))
        found = self.ranker.best(scores)
        self._keep(self.top, points, part, found.values)
        for kept, indices in zip(self.places, (found.place, found.inner, found.outer), strict=False):
            assert indices is not None
            self._keep(kept, points, part, indices)

    def _keep(self, kept: Tensor, points: slice, part: slice, found: Tensor) -> None:
        """Put what was found, increments first and then residual streams, to its points, where they alternate."""
        place = kept[points, part]
        kinds = 1 if len(place) == 1 else 2
        place.view(-1, kinds, *place.shape[1:]).transpose(0, 1).copy_(found.view(kinds, -1, *place.shape[1:]))

    def result(self, output: Tensor) -> StreamReadings:
        """Everything read, as ``[S, B, T, ...]``."""
        if self.waiting:
            self._read()
        if self.n != self.points.n_increments:
            raise RuntimeError(f"expected {self.points.n_increments} increments in the pass, got {self.n}")
        classes = found_classes(Found(self.top, *(kept.long() for kept in self.places)), self.count)
        shape = (len(self.points), -1, self.tokens)
        sigma = self.sigma.unsqueeze(-1)
        return StreamReadings(
            classes=self.classes,
            logits=(self.target / sigma).view(*shape, self.target.shape[-1]),
            ranks=self.rank.masked_fill_(self.target.isnan(), -1).view(*shape, self.rank.shape[-1]),
            top_classes=classes.to(torch.int32).view(*shape, self.k),
            top_logits=(self.top / sigma).view(*shape, self.k),
            output=output,
            n_classes=self.count,
            points=self.points,
            class_names=self.class_names,
        )


def _reads_in_pieces(device: torch.device) -> bool:
    """Whether rows are gone through in pieces: a processor's cache gains by it, a GPU does not."""
    return device.type == "cpu"


def _joined(parts: Sequence[StreamReadings]) -> StreamReadings:
    if len(parts) == 1:
        return parts[0]
    along = {"classes": 0, "output": 0, "logits": 1, "ranks": 1, "top_classes": 1, "top_logits": 1}
    merged: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts], dim=d) for name, d in along.items()}
    return replace(parts[0], **merged)


@contextmanager
def _tensor_cores(allowed: bool) -> Iterator[None]:
    """Allow TF32 products inside, if asked; the flag goes back to what it was."""
    before = torch.get_float32_matmul_precision()
    if allowed:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if allowed:
            torch.set_float32_matmul_precision(before)
