"""Where a class logit stands at every depth: in which tokens, and how much of it in biases.

Everything that a block does to the residual stream is linear once its attention weights, norm scales and activation gates
are held at the values that they have in a pass (see `held`).  So the class logit is a linear function of the stream at every
point n on the way, plus what the biases after it bring:

    logit_c = sum over tokens t of <g_n,c[t], x_n[t]> + bias_n,c.

``g`` is the slope of the logit by the stream with all these numbers held.  At the last block it is the classifier's row over
the norm's scale; one walk back through the blocks gives it everywhere, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.lens import Readout
from classspace_widgets.lens.lens import full_precision
from classspace_widgets.lookup import items_of
from classspace_widgets.metrics.describe import flow_html
from classspace_widgets.metrics.held import HeldAttention, HeldMlp, Slope, require_held
from classspace_widgets.metrics.tables import masked_tokens
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.points import Point
from classspace_widgets.trace.hooks import evaluating
from classspace_widgets.trace.weights import block_arguments, weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from classspace_widgets.models import Adapter
    from classspace_widgets.trace import Trace

    Classes = int | str | Sequence[int | str] | Tensor

NUMBERS_AT_ONCE = 2**27
"""Numbers in the widest layer of an MLP that are held at once (512 MB in float32): more classes are taken in groups."""
ROUNDING = 2000
"""Units of rounding by which a sum may differ from the logit, relative to the lengths of slopes and tokens."""
MAX_ERROR = 0.1
"""The same where a unit is large: what rounding may explain in half precision."""


@dataclass(frozen=True)
class Flow:
    """Where the logits of some classes stand, at every point of the residual stream.

    Made by `flow`.  At every point, ``values.sum(dim=2) + bias`` is the class logit of the model's answer.

    Attributes
    ----------
    values : Tensor [P, B, T, K]
        What every token of the residual stream brings to the logit, at P points.
    bias : Tensor [P, B, K]
        What the biases after each point bring.
    points : tuple of Point
        The P points.
    attention, mlp : Tensor [L, B, T, K]
        What passes through each block's attention and MLP: the share of what they add to each token.
    heads : Tensor [L, B, H, T, K] or None
        On request: what passes through every head, by the token that is read.  With the biases of the output projection
        the sum over heads and tokens is that of ``attention``.
    classes : tuple of int
        The K classes.
    class_names : tuple of str
        Names of all C classes.
    prefix : int
        Number of prefix tokens.
    grid : tuple of int
        Rows and columns of image tokens.
    """

    __repr__ = short_repr
    _repr_html_ = flow_html

    values: Tensor
    bias: Tensor
    points: tuple[Point, ...]
    attention: Tensor
    mlp: Tensor
    heads: Tensor | None
    classes: tuple[int, ...]
    class_names: tuple[str, ...] = field(default=(), repr=False)
    prefix: int = 1
    grid: tuple[int, int] = (0, 0)

    def total(self) -> Tensor:
        """Sum over tokens and biases, ``[P, B, K]``: the class logits of the model's answer, the same at every point."""
        return self.values.sum(dim=2) + self.bias

    def at(self, block: int, stream: str = "residual") -> Tensor:
        """Values ``[B, T, K]`` at one of the points."""
        place = Point(block, stream)
        if place not in self.points:
            known = ", ".join(f"({p.block}, {p.stream!r})" for p in self.points)
            raise ValueError(f"this flow has the points {known}, got {tuple(place)}; ask for it in flow(..., points=)")
        return self.values[self.points.index(place)]

    def by_place(self, mask: Any = None) -> dict[str, Tensor]:
        """How the logits divide into places, over the points.

        Parameters
        ----------
        mask : array_like [height, width], or [B, height, width], optional
            Where the object is, of all pictures or of each; as in `masks.token_mask`.

        Returns
        -------
        dict of str to Tensor [P, B, K]
            ``"prefix"``, ``"image"`` (with a mask ``"object"`` and ``"context"`` in its place) and ``"biases"``; their
            sum is the logit.

        Examples
        --------
        >>> from classspace_widgets.scenes import gallery
        >>> scene = gallery()[0]
        >>> found = flow(ClassSpace.bundled().trace(scene.picture), "fish")
        >>> places = found.by_place(scene.mask)
        >>> [round(places["object"][n, 0, 0].item() / found.total()[n, 0, 0].item(), 1) for n in (0, -1)]
        [1.1, 0.0]
        """
        parts = {"prefix": self.values[:, :, : self.prefix].sum(dim=2)}
        image = self.values[:, :, self.prefix :]
        if mask is None:
            parts["image"] = image.sum(dim=2)
        else:
            inside = (masked_tokens(mask, image.shape[1], self.grid) == 1).to(image)
            parts["object"] = torch.einsum("pbtk,bt->pbk", image, inside)
            parts["context"] = torch.einsum("pbtk,bt->pbk", image, 1 - inside)
        return {**parts, "biases": self.bias}


def flow(
    trace: Trace, classes: Classes, points: Sequence[tuple[int, str]] | None = None, *, heads: bool = False
) -> Flow:
    """What every token of the residual stream brings to class logits of the model's answer, at every depth; exactly additive.

    The attention weights, norm scales and activation gates of the pass are held; the rest is linear.

    Parameters
    ----------
    trace : Trace
        With its model, whose blocks are walked back through.  Attention weights that it holds are used; others are computed
        again.
    classes : class, or K classes
        By index or name.
    points : sequence of pairs of block and stream, optional
        Points of the residual stream: ``(0, "residual")`` is the embedding, ``(l, "mid")`` after a block's attention,
        ``(l, "residual")`` after the block.  By default all of them.
    heads : bool
        Also what passes through every attention head.

    Returns
    -------
    Flow

    Raises
    ------
    ValueError
        For a class or a point that does not exist, or a trace from which tokens were removed.
    UnsupportedModelError
        If the model's attention has no exact sources, its MLP is of another kind, or its answer is not linear in the tokens;
        or if the trace does not follow from its model, because of an intervention.
    RuntimeError
        If the trace has no model behind it.

    Notes
    -----
    Vilas et al. do not have this reading.  At the last block it is `contributions` at the output token.  Related: locally
    linear networks, AttnLRP (Achtibat et al. 2024) and LibraGrad (Mehri et al. 2025), see docs/method.md.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> found = flow(trace, "fish")
    >>> found.values.shape  # points, B, T, K
    torch.Size([17, 1, 145, 1])
    >>> fish = trace.class_names.index("fish")
    >>> torch.allclose(found.total()[:, 0, 0], trace.output[0, fish], atol=1e-3)  # at every depth
    True
    """
    wanted = trace.class_indices(classes)
    if wanted is None:
        raise TypeError("classes must be a class or several, by index or name, got None")
    return flow_of(trace, wanted.expand(trace.n_images, -1), points, heads=heads)


def flow_of(
    trace: Trace, classes: Tensor, points: Sequence[tuple[int, str]] | None = None, *, heads: bool = False
) -> Flow:
    """`flow` of other classes for each picture, ``[B, K]``."""
    adapter = _checked(trace)
    numbers = _numbers(trace, points)
    with torch.no_grad(), full_precision(trace.output), evaluating(adapter.model):
        width = trace.n_images * trace.n_tokens * max(_width(block) for block in adapter.blocks)
        size = max(1, NUMBERS_AT_ONCE // width)
        walks = [_Walk(trace, adapter, group, numbers, heads).back() for group in torch.split(classes, size, dim=1)]
    values, bias, attention, mlp, *by_head = (torch.cat(parts, dim=-1) for parts in zip(*walks, strict=True))
    return Flow(
        values,
        bias,
        tuple(trace.points[n] for n in numbers),
        attention,
        mlp,
        by_head[0] if by_head else None,
        tuple(classes[0].tolist()),
        tuple(trace.class_names),
        len(trace.prefix),
        trace.grid,
    )


def require_flow(trace: Trace) -> None:
    """Raise the error with which `flow` of a trace would be refused, before anything is computed."""
    _checked(trace)


def _checked(trace: Trace) -> Adapter:
    adapter = trace.require_space().adapter
    if not adapter.linear:
        raise adapter.not_linear()
    for block in adapter.blocks:
        require_held(block)
    if trace.kept_tokens is not None and any(b not in trace.attention_weights for b in trace.points.blocks):
        raise ValueError(
            "tokens of this trace were removed, so its attention weights cannot be computed again: keep them, with "
            "trace_with(space, images, interventions, full_grid=False, attention=True)"
        )
    if trace.kept_tokens is not None and trace.n_tokens > len(trace.kept_tokens):
        raise ValueError(
            "tokens of this trace were removed, which leaves gaps: use trace_with(..., full_grid=False, attention=True)"
        )
    return adapter


def _numbers(trace: Trace, points: Sequence[tuple[int, str]] | None) -> list[int]:
    """Numbers of the points asked for, in the order asked for."""
    if points is None:
        return trace.points.of_streams(("mid", "residual"))
    asked, single = items_of(points)
    if single or not asked or any(isinstance(one, int) for one in asked):
        raise ValueError(f"points must be pairs of a block and a stream, such as [(3, 'residual')], got {points!r}")
    for block, stream in asked:
        if stream not in ("mid", "residual"):
            raise ValueError(
                f"flow is read at the residual stream, 'mid' or 'residual', got {stream!r}; what passes through attention "
                "and MLPs is in its attributes attention and mlp"
            )
        trace.points.check(stream, block)
    return [trace.points.number(stream, block) for block, stream in asked]


def _width(block: Any) -> int:
    """Width of the widest layer of a block's MLP."""
    return max(int(block.mlp.fc2.in_features), int(block.mlp.fc2.out_features))


class _Walk:
    """One walk back through the blocks, for some classes ``[B, K]`` of every picture."""

    def __init__(self, trace: Trace, adapter: Adapter, classes: Tensor, numbers: Sequence[int], heads: bool) -> None:
        self.trace, self.adapter, self.classes = trace, adapter, classes
        self.numbers, self.heads = numbers, heads
        self.streams = list(accumulate(increment.to(trace.lens.dtype) for increment in trace.increments))
        self.arguments: list[dict[str, Any]] | None = None
        self.answer: Tensor | None = None

    def back(self) -> list[Tensor]:
        """Values and biases at the points, and what passes through attention, MLPs and (on request) heads, by block."""
        points, increments = self.trace.points, self.trace.increments
        slope = self._start()
        found = {len(points) - 1: self._read(len(points) - 1, slope)}
        through: dict[str, list[Tensor]] = {"attention": [], "mlp": [], "heads": []}
        for number in reversed(points.blocks):
            first, second = points.increment("attention", number), points.increment("mlp", number)
            block = self.adapter.blocks[number - 1]
            through["mlp"].append(slope.on(increments[second]))
            slope = slope + HeldMlp(block, self._input(first)).before(slope.alone())
            found[points.number("mid", number)] = self._read(points.number("mid", number), slope)
            through["attention"].append(slope.on(increments[first]))
            held = HeldAttention(block, require_held(block), self._input(first - 1), self._weights(number))
            before, heads = held.before(slope.alone(), heads=self.heads)
            slope = slope + before
            if heads is not None:
                through["heads"].append(heads)
            last = points.number("residual", number - 1)
            found[last] = self._read(last, slope)
        pairs = [found[n] for n in self.numbers]
        parts = [torch.stack([pair[i] for pair in pairs]) for i in (0, 1)]
        return parts + [torch.stack(kept[::-1]) for kept in through.values() if kept]

    def _start(self) -> Slope:
        """The slope at the last residual stream: the classifier's rows over the norm's scale."""
        trace, last = self.trace, self.streams[-1]
        readout = Readout.of_pass(trace)
        slopes = readout.slopes(trace.lens, last, trace.second_lens)
        vectors = [torch.einsum("bt,bkd->bktd", weights, lens.folded[self.classes]) for lens, weights in slopes]
        offset = readout.offset(trace.lens, trace.second_lens)
        return Slope(torch.stack(vectors).sum(dim=0), offset[self.classes])

    def _read(self, number: int, slope: Slope) -> tuple[Tensor, Tensor]:
        """Values ``[B, T, K]`` and biases ``[B, K]`` at a point; an error where they do not sum to the logit."""
        point = self.trace.points[number]
        stream = self.streams[self.trace.points.increment(point.stream, point.block)]
        values = slope.on(stream)
        total = values.sum(dim=1) + slope.bias
        self.answer = total if self.answer is None else self.answer
        # What is rounded is the products inside a token, which may cancel.
        size = torch.einsum("bkt,bt->bk", slope.vectors.norm(dim=-1), stream.norm(dim=-1)) + slope.bias.abs()
        rounding = max(torch.finfo(self.trace.increments[0].dtype).eps, torch.finfo(total.dtype).eps)
        error = float(((total - self.answer).abs() / size.clamp_min(1e-12)).max())
        if not error <= min(ROUNDING * rounding, MAX_ERROR):
            raise UnsupportedModelError(
                f"the class logits of {self.trace.model_name or 'this model'} do not divide at {point.name}: the shares sum to "
                f"something else (relative error {error:.1e}). An intervention changed what its blocks add (trace the picture "
                "without it; knocked out attention is followed in a trace with attention=True), its weights were changed since "
                "the trace was made, or its blocks do more than attention and MLP"
            )
        return values, slope.bias

    def _input(self, increment: int) -> Tensor:
        """The stream after an increment, as the model's own modules take it."""
        return self.streams[increment].to(self.trace.increments[0].dtype)

    def _weights(self, number: int) -> Tensor:
        """Attention weights ``[B, H, T, T]`` of a block: the trace's, or computed again."""
        kept = self.trace.attention_weights.get(number)
        if kept is not None and kept.shape[1] == self.adapter.heads:
            return kept
        if self.arguments is None:
            self.arguments = block_arguments(self.adapter, self.trace.grid)
        stream = self._input(self.trace.points.increment("attention", number) - 1)
        return weights_of(self.adapter.blocks[number - 1], stream, self.arguments[number - 1])
