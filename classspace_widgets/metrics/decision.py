"""When a pass decides: from which point on a class stays first, and how sure and how settled the reading is until then.

Everything is read at the residual stream, through the logit lens or a fitted one, at every token and at the answer itself,
which is pooled from the tokens as the model pools.  Points are gone through from the last to the first: the last one says
which class is final, the others whether it is still first.

An untrained network settles on some class too: compare with random twins (`studies.Decision`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.lens import ClassLens, count_above
from classspace_widgets.lens.lens import full_precision
from classspace_widgets.lens.projection import Projection
from classspace_widgets.lookup import own_classes, whole_number
from classspace_widgets.metrics.describe import decision_html
from classspace_widgets.metrics.tables import decision_table
from classspace_widgets.points import Point
from classspace_widgets.trace.reading import checked_lens, read_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from torch import Tensor

    from classspace_widgets.lens import FittedLens
    from classspace_widgets.trace import Trace

    Labels = int | str | Sequence[int | str] | Tensor | None

FOLLOWED = 5
"""Final classes whose order is followed, as many as the views list."""
ROWS = 400
"""Tokens read at a time on a CPU, so that their logits stay in its cache: 1.6 MB of 1000 classes."""


@dataclass(frozen=True)
class Decision:
    """When the answer, and every token, settles on a class; and how each reading stands at every point until then.

    Made by `decision`.  On the axis of T + 1 places the tokens come first; the last place is the answer itself, as the model
    pools it.  -1 and NaN stand where nothing is read: at tokens that were removed, and where a fitted lens has no map.

    Attributes
    ----------
    points : tuple of Point
        The P points of the residual stream.
    first : Tensor [P, B, T + 1], int64
        The class that is first.
    final : Tensor [B, T + 1, k], int64
        The k classes that are first in the end, best first.
    decided_at : Tensor [B, T + 1], int64
        Number in ``points`` from which on the final class stays first.
    tau : Tensor [P, B, T + 1], float32
        Kendall's tau between the order of the k final classes at a point and their final order, -1 to 1; ties count 0.
        NaN for k = 1.
    entropy : Tensor [P, B, T + 1], float32
        Of the softmax over all classes, in nats: 0 to log C.
    labels : Tensor [B], int64
        The class that each picture is read for.
    log_probability : Tensor [P, B, T + 1], float32
        Of the label, in nats.
    reciprocal_rank : Tensor [P, B, T + 1], float32
        Of the label: 1 if it is first, 1/2 if one class is above it.
    margin : Tensor [P, B, T + 1], float32
        The label's logit minus that of its best competitor.
    competitor : Tensor [P, B, T + 1], int64
        The class with the largest logit besides the label.
    lens : str
        Kind of the lens: ``"logit"``, ``"jacobian"``, ``"translator"`` or ``"probe"``.
    class_names, image_names : tuple of str
    prefix : int
        Number of prefix tokens.
    grid : tuple of int
        Rows and columns of image tokens.
    """

    __repr__ = short_repr
    _repr_html_ = decision_html

    points: tuple[Point, ...]
    first: Tensor
    final: Tensor
    decided_at: Tensor
    tau: Tensor
    entropy: Tensor
    labels: Tensor
    log_probability: Tensor
    reciprocal_rank: Tensor
    margin: Tensor
    competitor: Tensor
    lens: str = "logit"
    class_names: tuple[str, ...] = field(default=(), repr=False)
    image_names: tuple[str, ...] = field(default=(), repr=False)
    prefix: int = 1
    grid: tuple[int, int] = (0, 0)

    @property
    def decided_block(self) -> Tensor:
        """The block of ``decided_at``, ``[B, T + 1]``: 0 for the embedding; -1 where nothing is read."""
        blocks = torch.tensor([point.block for point in self.points] + [-1], device=self.decided_at.device)
        return blocks[self.decided_at]

    def table(self, mask: Any = None) -> pd.DataFrame:
        """One row for each picture, with named columns, to be joined with other measurements of the same pictures.

        Parameters
        ----------
        mask : array_like [height, width], or [B, height, width], optional
            Where the object is, of all pictures or of each; as in `masks.token_mask`.

        Returns
        -------
        DataFrame
            ``image`` (0..B-1), ``name``; ``label``, ``answer`` and ``competitor``, each with ``..._name``; ``correct``; where the
            answer is decided: ``decided_at`` (number of the point), ``decided_point`` (its name), ``decided_block``,
            ``decided_share`` (of the depth, 0 to 1); at the end ``margin``, ``entropy``, ``log_probability``,
            ``reciprocal_rank``, and their means over points, ``mean_...``, with ``mean_tau``; and of the image tokens the
            median ``image_decided_share``, with a mask also ``object_decided_share`` and ``context_decided_share``.

        Examples
        --------
        >>> from classspace_widgets.scenes import gallery
        >>> trace = ClassSpace.bundled().trace([scene.picture for scene in gallery()[:2]])
        >>> decision(trace).table()[["label_name", "decided_point"]].values.tolist()
        [['fish', 'block 5 mid'], ['rocket', 'block 5 mid']]
        """
        return decision_table(self, mask)


def decision(
    trace: Trace, labels: Labels = None, *, k: int | None = None, lens: FittedLens | None = None, mid: bool = True
) -> Decision:
    """When a pass decides, and how its readings stand until then.

    Parameters
    ----------
    trace : Trace
    labels : class, or B classes, optional
        The class that each picture is read for; by default the model's own answer.
    k : int, optional
        How many final classes are followed in their order; by default 5, or all where there are fewer.
    lens : FittedLens, optional
        Read through this lens, of all classes, instead of the logit lens.
    mid : bool
        Whether the residual stream between attention and MLP counts as a point.

    Returns
    -------
    Decision

    Raises
    ------
    ValueError
        For labels that are neither one nor B, an unknown class, k beyond the classes, or a lens of another model or of some
        classes only.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> found = decision(trace, "fish")
    >>> found.first.shape, found.points[found.decided_at[0, -1]].name  # points, B, T + 1; where the answer is decided
    (torch.Size([17, 1, 146]), 'block 5 mid')
    """
    wanted = trace.output.argmax(dim=-1)
    if labels is not None:
        wanted = torch.tensor(own_classes(trace.class_names, labels, trace.n_images), device=trace.output.device)
    return decision_of(trace, wanted, k=k, lens=lens, mid=mid)


def decision_of(
    trace: Trace, labels: Tensor, *, k: int | None = None, lens: FittedLens | None = None, mid: bool = True
) -> Decision:
    """`decision` for checked class numbers ``[B]`` on the trace's device."""
    k = min(FOLLOWED, trace.n_classes) if k is None else whole_number(k, "k", 1, trace.n_classes)
    if lens is not None:
        lens.require_complete("decisions")
        lens = checked_lens(trace, lens)
    numbers = trace.points.of_streams(("mid", "residual") if mid and trace.points.sequential else "residual")
    points = tuple(trace.points[n] for n in numbers)
    with torch.no_grad(), full_precision(trace.output):
        walk = _Walk(trace, labels, k, lens)
        streams = dict(enumerate(accumulate(v.to(trace.lens.dtype) for v in trace.increments)))
        for number in reversed(range(len(points))):
            walk.read(
                number, points[number], streams[trace.points.increment(points[number].stream, points[number].block)]
            )
    return Decision(
        points=points,
        final=walk.final,
        decided_at=walk.decided,
        labels=labels,
        lens="logit" if lens is None else lens.kind,
        class_names=tuple(trace.class_names),
        image_names=tuple(trace.image_names),
        prefix=len(trace.prefix),
        grid=trace.grid,
        **walk.standing(),
    )


@dataclass
class _Standing:
    """How rows of logits stand: one number for each row."""

    first: Tensor
    tau: Tensor
    entropy: Tensor
    log_probability: Tensor
    reciprocal_rank: Tensor
    margin: Tensor
    competitor: Tensor


class _Walk:
    """Goes through the points from the last to the first, and keeps what is final."""

    def __init__(self, trace: Trace, labels: Tensor, k: int, lens: FittedLens | None) -> None:
        self.trace, self.labels, self.lens = trace, labels, lens
        self.shape = (trace.n_images, trace.n_tokens + 1)
        device = trace.output.device
        self.final = torch.full((*self.shape, k), -1, device=device)
        self.decided = torch.full(self.shape, -1, device=device)
        self.still = torch.ones(self.shape, dtype=torch.bool, device=device)
        self.kept: list[_Standing] = []
        self.project = Projection.of(trace.lens, torch.float32) if type(trace.lens) is ClassLens else None

    def read(self, number: int, point: Point, vectors: Tensor) -> None:
        """Read one point, of which the stream is ``[B, T, D]``."""
        found: list[_Standing] = []
        places = torch.arange(self.final[..., 0].numel(), device=self.final.device).view(self.shape)
        own = self.labels.unsqueeze(1).expand(self.shape).reshape(-1)
        final = self.final.view(-1, self.final.shape[-1])
        order = []
        for rows, logits in self._logits(point, vectors, places):
            unset = (final[rows, 0] < 0) & ~logits[:, 0].isnan()
            # Only a CPU answers at once whether there are any.
            if logits.device.type != "cpu" or bool(unset.any()):
                best = logits.topk(final.shape[1], dim=-1).indices
                final[rows] = torch.where(unset.unsqueeze(1), best, final[rows])
            found.append(_standing(logits, own[rows], final[rows]))
            order.append(rows)
        back = torch.cat(order).argsort()
        joined = {f.name: torch.cat([getattr(part, f.name) for part in found])[back] for f in fields(_Standing)}
        standing = _Standing(**{name: values.view(self.shape) for name, values in joined.items()})
        self.kept.append(standing)
        read = standing.first >= 0
        same = standing.first == self.final[..., 0]
        self.decided = torch.where(self.still & read & same, number, self.decided)
        self.still &= same | ~read

    def _logits(self, point: Point, vectors: Tensor, places: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Places on the flat axis of pictures and tokens, and their class logits ``[n, C]``, in pieces."""
        lens, trace = self.trace.lens, self.trace
        if self.lens is not None or self.project is None:
            here = lens if self.lens is None else self.lens.at(point, range(trace.n_tokens))
            for one, rows in zip(vectors, places, strict=True):
                yield rows[:-1], here.logits(one)
        else:
            flat, numbers = vectors.reshape(-1, vectors.shape[-1]), places[:, :-1].reshape(-1)
            size = ROWS if flat.device.type == "cpu" else len(flat)
            for rows, piece in zip(torch.split(numbers, size), torch.split(flat, size), strict=True):
                logits = self.project(piece).div_(lens.sigma(piece).unsqueeze(-1)).add_(self.project.offset)
                yield rows, logits[:, : trace.n_classes]
        yield places[:, -1], read_answer(trace, vectors, point, self.lens)

    def standing(self) -> dict[str, Any]:
        """How everything stands at every point, by the names that a `Decision` has for it."""
        return {f.name: torch.stack([getattr(s, f.name) for s in self.kept[::-1]]) for f in fields(_Standing)}


def _standing(logits: Tensor, own: Tensor, final: Tensor) -> _Standing:
    """How rows of logits ``[n, C]`` stand for a class of each, ``[n]``, and for their final classes ``[n, k]``."""
    missing = logits[:, 0].isnan()
    first = _argmax(logits)
    best = logits.gather(1, first.unsqueeze(1))
    mine = logits.gather(1, own.unsqueeze(1))
    rank = count_above(logits, mine)[:, 0]
    above = logits - best
    shares = above.exp()
    total = shares.sum(dim=1)
    log_total = total.log()
    # Classes far below have a share of 0, and 0 times minus infinity is not 0.
    entropy = log_total - (shares.mul_(above.clamp_min_(-1e30))).sum(dim=1) / total
    log_probability = (mine - best)[:, 0] - log_total
    others = logits.scatter(1, own.unsqueeze(1), -torch.inf)
    competitor = _argmax(others)
    margin = (mine - others.gather(1, competitor.unsqueeze(1)))[:, 0]
    tau = _tau(logits.gather(1, final.clamp_min(0)))
    numbers = [tau, entropy, log_probability, 1.0 / (rank + 1).clamp_min(1), margin]
    tau, entropy, log_probability, reciprocal, margin = (n.float().masked_fill(missing, torch.nan) for n in numbers)
    classes = [c.masked_fill(missing, -1) for c in (first, competitor)]
    return _Standing(classes[0], tau, entropy, log_probability, reciprocal, margin, classes[1])


def _tau(ordered: Tensor) -> Tensor:
    """Kendall's tau of rows ``[n, k]`` with a falling order: pairs that fall minus pairs that rise, over all pairs."""
    count = ordered.shape[1]
    earlier, later = torch.triu_indices(count, count, offset=1, device=ordered.device)
    if count < 2:
        return ordered.new_full((len(ordered),), torch.nan)
    return (ordered[:, earlier] - ordered[:, later]).sign().mean(dim=1)


def _argmax(logits: Tensor) -> Tensor:
    """The first largest entry of the last axis."""
    # On CPUs numpy's is an order of magnitude faster than torch's.
    return torch.from_numpy(logits.numpy().argmax(axis=-1)) if logits.device.type == "cpu" else logits.argmax(dim=-1)
