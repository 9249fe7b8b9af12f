"""Contributions to a class by the embedding, attention, MLPs, heads and source tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.lens import Readout
from classspace_widgets.lens.lens import full_precision
from classspace_widgets.lookup import class_index, items_of, whole_number
from classspace_widgets.metrics.describe import contributions_html
from classspace_widgets.models import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from classspace_widgets.lens import ClassLens, FittedLens
    from classspace_widgets.points import Points
    from classspace_widgets.trace import Trace

    Blocks = int | Sequence[int] | None
    Classes = int | str | Sequence[int | str] | Tensor

READINGS = ("direct", "step", "paper")


@dataclass(frozen=True)
class Contributions:
    """Contributions of the increments to class readings.

    Made by `contributions`.

    Attributes
    ----------
    values : Tensor [K, N, B, T], float32
        In logits; increments in order: embedding, a_1, m_1, ..., a_L, m_L.
    offset : Tensor [K]
        The part of the lens that does not depend on the input (0 except for ``"direct"``).
    reading : str
    points : Points
        The numbering of the N increments.
    classes : tuple of int
        The K classes.
    class_names : tuple of str
        Names of all C classes.
    """

    __repr__ = short_repr
    _repr_html_ = contributions_html

    values: Tensor
    offset: Tensor
    reading: str
    points: Points
    classes: tuple[int, ...] = ()
    class_names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def embedding(self) -> Tensor:
        """Contribution of the embedding, ``[K, B, T]``."""
        return self.values[:, 0]

    @property
    def attention(self) -> Tensor:
        """Contribution of every block's attention, ``[K, L, B, T]``."""
        return self._sublayer("attention")

    @property
    def mlp(self) -> Tensor:
        """Contribution of every block's MLP, ``[K, L, B, T]``."""
        return self._sublayer("mlp")

    def _sublayer(self, sublayer: str) -> Tensor:
        if not self.points.sequential:
            raise UnsupportedModelError("parallel blocks add attention and MLP together: use values[:, 1:], by block")
        return self.values[:, [self.points.increment(sublayer, block) for block in self.points.blocks]]

    def total(self) -> Tensor:
        """Sum of all contributions and the offset, ``[K, B, T]``: the class logit of ``x_L`` for ``direct`` and ``step``."""
        return self.values.sum(dim=1) + self.offset[:, None, None]


def contributions(
    trace: Trace, classes: Classes, reading: str = "direct", *, lens: FittedLens | None = None
) -> Contributions:
    """Contributions of the embedding and of every block's attention and MLP to class logits.

    Parameters
    ----------
    trace : Trace
    classes : class, or K classes
        By index or name.
    reading : str
        ``"direct"``: ``E_c · increment``, scaled by the final norm's statistics of that token; exactly additive: with
        the offset the sum is the class logit of ``x_L``. ``"step"``: the change of the residual stream's class logit when
        the increment is added (for the embedding, ``lens(x_0)``); the sum is the same. ``"paper"``: the class logit of
        the increment minus that of the block's input; not additive.
    lens : FittedLens, optional
        For ``"step"`` and ``"paper"``: read through this lens instead of the logit lens; NaN where it has no map.

    Returns
    -------
    Contributions

    Raises
    ------
    ValueError
        For an unknown reading or class.

    Examples
    --------
    >>> from classspace_widgets import ClassSpace
    >>> trace = ClassSpace.from_timm("test_vit", pretrained=False).trace(torch.zeros(1, 3, 160, 160))
    >>> shares = contributions(trace, "goldfish")
    >>> torch.allclose(shares.total(), trace.logits(classes="goldfish").permute(2, 0, 1), atol=1e-4)
    True
    """
    wanted = _classes(trace, classes)
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {READINGS}, got {reading!r}")
    if lens is not None and reading == "direct":
        raise ValueError(
            "direct contributions are those to the classifier's own logit; through a fitted lens read 'step' or 'paper'"
        )
    indices = tuple(class_index(trace.class_names, c) for c in items_of(classes)[0])
    about = (reading, trace.points, indices, tuple(trace.class_names))
    with torch.no_grad(), full_precision(trace.output):
        if reading == "direct":
            sigma = trace.lens.sigma(_final(trace))
            return Contributions(_raw(trace, trace.lens, wanted) / sigma, trace.lens.offset[wanted], *about)
        if lens is not None:
            values = _through(trace, list(indices), reading, lens)
            return Contributions(values, torch.zeros_like(trace.lens.offset[wanted]), *about)
        total, shares = torch.zeros_like(_vectors(trace, 0)), []
        raw = total.new_zeros(*total.shape[:2], len(wanted))
        logits: list[Tensor] = []
        for n in range(len(trace.increments)):
            vectors = _vectors(trace, n)
            total = total + vectors
            own = trace.lens.raw(vectors, wanted)
            raw = raw + own
            logits.append(raw / trace.lens.sigma(total).unsqueeze(-1) + trace.lens.offset[wanted])
            if reading == "step" or n == 0:
                shares.append(logits[n] - logits[n - 1] if n else logits[0])
            else:
                read = own / trace.lens.sigma(vectors).unsqueeze(-1) + trace.lens.offset[wanted]
                shares.append(read - logits[trace.points.block_input(n)])
        values = torch.stack(shares).permute(3, 0, 1, 2)
        return Contributions(values, torch.zeros_like(trace.lens.offset[wanted]), *about)


def _through(trace: Trace, classes: list[int], reading: str, lens: FittedLens) -> Tensor:
    """Steps, or the paper's differences, ``[K, N, B, T]`` through a fitted lens."""
    points, shares, after = trace.points, [], []
    for n in range(len(trace.increments)):
        added, summed = (points[number] for number in (points.of_increment(n)[0], points.of_increment(n)[-1]))
        after.append(trace.logits(summed.stream, summed.block, classes, lens=lens))
        if reading == "step" or n == 0:
            shares.append(after[n] - after[n - 1] if n else after[0])
        else:
            own = trace.logits(added.stream, added.block, classes, lens=lens)
            shares.append(own - after[points.block_input(n)])
    return torch.stack(shares).permute(3, 0, 1, 2)


def output_contributions(trace: Trace, classes: Classes) -> tuple[Tensor, Tensor]:
    """Direct contributions to the model's own output, for any pooling: they sum to ``trace.output``.

    Parameters
    ----------
    trace : Trace
    classes : class, or K classes
        By index or name.

    Returns
    -------
    tuple of Tensor [K, N, B] and Tensor [K]
        Contributions of the increments, and the offset.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled("gap").trace(gallery()[0].picture)
    >>> shares, offset = output_contributions(trace, "fish")
    >>> torch.allclose(shares.sum(1)[0] + offset, trace.output[:, trace.class_names.index("fish")], atol=1e-4)
    True
    """
    wanted = _classes(trace, classes)
    with torch.no_grad(), full_precision(trace.output):
        offset = Readout.of_pass(trace).offset(trace.lens, trace.second_lens)[wanted]
        return _at_output(trace, lambda lens: _raw(trace, lens, wanted)), offset


def direct_by_head(trace: Trace, block: Blocks, classes: Classes) -> tuple[Tensor, Tensor]:
    """The direct contribution of a block's attention, split by head; exact.

    Parameters
    ----------
    trace : Trace
        Made with ``heads=True``.
    block : int, sequence of int, or None
        1..L, or -1 for the last one; several (None: all) give a leading axis, as in `Trace.ranks`.
    classes : class, or K classes

    Returns
    -------
    tuple of Tensor [K, H, B, T] and Tensor [K, B, T]
        Contributions of the heads, and of the output projection's bias; their sum is that of the block's attention.
        For several blocks ``[n, K, H, B, T]`` and ``[n, K, B, T]``.

    Raises
    ------
    ValueError
        If the trace has no heads of the block.
    UnsupportedModelError
        If the attention output is not the sum of its heads' outputs.

    See Also
    --------
    output_by_head : The same for the model's own answer, for any pooling.
    head_table : Means over many pictures, with intervals.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture, heads=True)
    >>> heads, bias = direct_by_head(trace, None, "fish")
    >>> heads.shape  # L, K, H, B, T
    torch.Size([8, 1, 4, 1, 145])
    >>> together = contributions(trace, "fish").attention.transpose(0, 1)
    >>> torch.allclose(heads.sum(dim=2) + bias, together, atol=1e-4)
    True
    """
    wanted = _classes(trace, classes)
    blocks, single = _blocks(trace, block)
    with torch.no_grad(), full_precision(trace.output):
        sigma = trace.lens.sigma(_final(trace))
        found = [_by_head(trace, trace.lens, b, wanted) for b in blocks]
        heads, bias = (torch.stack([part / sigma for part in parts]) for parts in zip(*found, strict=True))
        return (heads[0], bias[0]) if single else (heads, bias)


def output_by_head(trace: Trace, classes: Classes, block: Blocks = None) -> Tensor:
    """Direct contribution of every attention head to the model's own logit, for any pooling.

    With the biases of the output projections, the sum over heads is the attention's part of `output_contributions`.

    Parameters
    ----------
    trace : Trace
        Made with ``heads=True``.
    classes : class, or K classes
        By index or name.
    block : int, sequence of int, or None
        As in `direct_by_head`; by default all blocks.

    Returns
    -------
    Tensor [n, K, H, B]
        In logits; ``[K, H, B]`` for a single block.

    Raises
    ------
    ValueError, UnsupportedModelError
        As in `direct_by_head`.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled("gap").trace(gallery()[0].picture, heads=True)
    >>> output_by_head(trace, "fish").shape  # L, K, H, B
    torch.Size([8, 1, 4, 1])
    """
    wanted = _classes(trace, classes)
    blocks, single = _blocks(trace, block)
    with torch.no_grad(), full_precision(trace.output):

        def heads_of(block: int) -> Callable[[ClassLens], Tensor]:
            return lambda lens: _by_head(trace, lens, block, wanted)[0]

        found = [_at_output(trace, heads_of(b)) for b in blocks]
        return found[0] if single else torch.stack(found)


def direct_by_source(trace: Trace, block: Blocks, classes: Classes, tokens: Sequence[int]) -> Tensor:
    """The direct contribution of heads at some tokens, split by the source token that is read.

    ``A_h[t, s] · (V_h[s] W_O,h) · E_c / sigma(x_L[t])``; the sum over sources s is `direct_by_head`.

    Parameters
    ----------
    trace : Trace
        Made with ``attention=True, heads=True``.
    block : int, sequence of int, or None
        1..L, or -1 for the last one; several (None: all) give a leading axis.
    classes : class, or K classes
    tokens : sequence of int
        The t reading tokens.

    Returns
    -------
    Tensor [K, H, B, t, T]
        For several blocks ``[n, K, H, B, t, T]``.

    Raises
    ------
    ValueError
        If the trace has no attention or heads of the block.
    UnsupportedModelError
        If a head's output is not the weighted sum of its values.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture, attention=True, heads=True)
    >>> sources = direct_by_source(trace, 8, "fish", tokens=[0])
    >>> heads, _ = direct_by_head(trace, 8, "fish")
    >>> torch.allclose(sources.sum(dim=-1)[..., 0], heads[..., 0], atol=1e-4)
    True
    """
    wanted = _classes(trace, classes)
    blocks, single = _blocks(trace, block)
    chosen = [whole_number(t, "token", 0, trace.n_tokens - 1) for t in items_of(tokens)[0]]
    with torch.no_grad(), full_precision(trace.output):
        sigma = trace.lens.sigma(_final(trace)[:, chosen])
        found = [_by_source(trace, b, wanted, chosen) / sigma[:, :, None] for b in blocks]
        return found[0] if single else torch.stack(found)


def _blocks(trace: Trace, block: Blocks) -> tuple[list[int], bool]:
    """Checked block numbers, and whether it is a single block."""
    blocks, single = trace.blocks_of(block)
    return [whole_number(b, "block", 1, trace.n_blocks) for b in blocks], single


def _by_head(trace: Trace, lens: ClassLens, block: int, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Raw readings of a block's heads ``[K, H, B, T]`` and of its output projection's bias ``[K, 1, 1]``."""
    if block not in trace.head_inputs:
        if trace.space is not None:
            trace.out_projection(block)  # raises with the reason if this attention has no separate heads
        raise ValueError(f"this trace has no heads of block {block}; trace with heads=True (or heads=[{block}])")
    weight, bias = trace.out_projection(block)
    dtype = lens.folded.dtype
    read = (lens.folded[wanted] @ weight.to(dtype)).reshape(len(wanted), trace.heads, -1)
    heads = trace.head_inputs[block].to(dtype)
    heads = heads.reshape(*heads.shape[:2], trace.heads, -1)
    return torch.einsum("khd,bthd->khbt", read, heads), (lens.folded[wanted] @ bias.to(dtype))[:, None, None]


def _by_source(trace: Trace, block: int, wanted: Tensor, chosen: list[int]) -> Tensor:
    """Raw readings of what a block's heads move to the chosen tokens, by source ``[K, H, B, t, T]``."""
    if block not in trace.attention_weights:
        raise ValueError(f"this trace has no attention of block {block}; trace with attention=True, heads=True")
    if trace.attention_weights[block].shape[1] != trace.heads:
        raise ValueError(
            f"this needs the attention of all {trace.heads} heads of block {block}, the trace has "
            f"{trace.attention_weights[block].shape[1]}; trace with attention=[{block}], heads=True"
        )
    weight, _ = trace.out_projection(block)
    dtype = trace.lens.folded.dtype
    read = (trace.lens.folded[wanted] @ weight.to(dtype)).reshape(len(wanted), trace.heads, -1)
    values = torch.einsum("khd,bhsd->kbhs", read, trace.values(block).to(dtype))
    return torch.einsum("bhts,kbhs->khbts", trace.attention_weights[block][:, :, chosen].to(dtype), values)


def _at_output(trace: Trace, raw: Callable[[ClassLens], Tensor]) -> Tensor:
    """From raw readings ``[..., B, T]`` to ``[..., B]``: at the tokens, and with the scale, of the model's own output."""
    return Readout.of_pass(trace).share(raw, trace.lens, _final(trace), trace.second_lens)


def _vectors(trace: Trace, n: int) -> Tensor:
    return trace.increments[n].to(trace.lens.folded.dtype)


def _final(trace: Trace) -> Tensor:
    return trace.stream("residual", trace.n_blocks).to(trace.lens.folded.dtype)


def _raw(trace: Trace, lens: ClassLens, classes: Tensor) -> Tensor:
    """Raw readings of all increments, ``[K, N, B, T]``."""
    raws = [lens.raw(_vectors(trace, n), classes) for n in range(len(trace.increments))]
    return torch.stack(raws).permute(3, 0, 1, 2)


def _classes(trace: Trace, classes: Classes) -> Tensor:
    found = trace.class_indices(classes)
    if found is None:
        raise TypeError("classes must be a class or several, by index or name, got None")
    return found
