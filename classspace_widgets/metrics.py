"""The paper's measurements of a trace: identifiability, change rate, residual composition, contributions.

Symbols as in the paper: ``x_l`` the residual stream after block l, ``a_l`` and ``m_l`` what its attention and MLP add,
``E`` the class embedding.  B images, T tokens, L blocks, K classes, N = 2L + 1 increments, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.models import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from classspace_widgets.lens import ClassLens
    from classspace_widgets.trace import Trace

    Labels = int | str | Sequence[int | str] | Tensor
    Classes = int | str | Sequence[int | str] | Tensor

READINGS = ("direct", "step", "paper")


def identifiability(ranks: Tensor, n_classes: int) -> Tensor:
    """Class identifiability ``1 - rank / C``, in [1/C, 1]: 1 where the class is the best one (section 3.2).

    Examples
    --------
    >>> identifiability(torch.tensor([0, 9]), 10)
    tensor([1.0000, 0.1000])
    """
    return 1 - ranks / n_classes


def class_identifiability(
    trace: Trace, labels: Labels, *, stream: str = "residual", blocks: Sequence[int] | None = None
) -> Tensor:
    """How identifiable each image's class is in every token, over blocks (section 4.1, figure 2).

    Parameters
    ----------
    trace : Trace
    labels : class, or B classes
        By index or name.
    stream : str
        As in `Trace.stream`.
    blocks : sequence of int, optional
        By default all, from the embedding (0) for the residual stream.

    Returns
    -------
    Tensor [n, B, T], float32
        In [1/C, 1]; average over images and tokens for its evolution.

    Examples
    --------
    >>> from classspace_widgets import ClassSpace
    >>> trace = ClassSpace.from_timm("test_vit", pretrained=False).trace(torch.zeros(2, 3, 160, 160))
    >>> class_identifiability(trace, ["goldfish", "hen"]).shape  # blocks 0..6
    torch.Size([7, 2, 101])
    """
    wanted = _labels(trace, labels)
    return identifiability(
        _over_blocks(trace, stream, blocks, lambda logits: _rank_of(logits, wanted)), trace.n_classes
    )


def class_similarity_change(
    trace: Trace, labels: Labels, *, sublayer: str = "attention", against: str = "input"
) -> Tensor:
    """Whether a sublayer's output carries the class more than what it is added to (section 4.3).

    Class similarity change rate is the mean of the result over tokens.

    Parameters
    ----------
    trace : Trace
    labels : class, or B classes
    sublayer : str
        ``"attention"`` or ``"mlp"``: the class logit read from ``a_l`` or ``m_l`` ...
    against : str
        ... is compared with that read from the block's ``"input"`` ``x_{l-1}`` (as the paper's code does for both
        sublayers), or from ``"mid"``, what the MLP itself reads.

    Returns
    -------
    Tensor [L, B, T], bool
    """
    if sublayer not in ("attention", "mlp"):
        raise ValueError(f"sublayer must be 'attention' or 'mlp', got {sublayer!r}")
    if against not in ("input", "mid") or (against == "mid" and sublayer == "attention"):
        raise ValueError(f"against must be 'input' (or 'mid', for the MLP), got {against!r} for {sublayer}")
    wanted = _labels(trace, labels)
    blocks = range(1, trace.n_blocks + 1)
    added = _over_blocks(trace, sublayer, blocks, None, wanted)
    if against == "mid":
        return added > _over_blocks(trace, "mid", blocks, None, wanted)
    return added > _over_blocks(trace, "residual", range(trace.n_blocks), None, wanted)


def residual_composition(trace: Trace) -> Tensor:
    """Whether the best class of a block's output is new: that of neither its input, its attention, nor its MLP.

    The share of True over tokens is the paper's measure of composition (section 4.3).  The authors' code compares
    with the attention twice and with the MLP never; here all three are compared with.

    Returns
    -------
    Tensor [L, B, T], bool
    """

    def best(stream: str, blocks: Sequence[int]) -> Tensor:
        return _over_blocks(trace, stream, blocks, lambda logits: logits.argmax(dim=-1))

    blocks = range(1, trace.n_blocks + 1)
    residual = best("residual", range(trace.n_blocks + 1))
    after, before = residual[1:], residual[:-1]
    return (after != before) & (after != best("attention", blocks)) & (after != best("mlp", blocks))


@dataclass(frozen=True)
class Contributions:
    """What each increment contributes to class readings.

    Attributes
    ----------
    values : Tensor [K, N, B, T], float32
        In logits; increments in order: embedding, a_1, m_1, ..., a_L, m_L.
    offset : Tensor [K]
        What the lens adds whatever the input (``"direct"`` only; else 0).
    reading : str
    """

    __repr__ = short_repr

    values: Tensor
    offset: Tensor
    reading: str
    layout: str = "sequential"

    @property
    def embedding(self) -> Tensor:
        """Share of the embedding, ``[K, B, T]``."""
        return self.values[:, 0]

    @property
    def attention(self) -> Tensor:
        """Share of every block's attention, ``[K, L, B, T]``."""
        return self._sublayer(1)

    @property
    def mlp(self) -> Tensor:
        """Share of every block's MLP, ``[K, L, B, T]``."""
        return self._sublayer(2)

    def _sublayer(self, first: int) -> Tensor:
        if self.layout != "sequential":
            raise UnsupportedModelError("parallel blocks add attention and MLP together: use values[:, 1:], by block")
        return self.values[:, first::2]

    def total(self) -> Tensor:
        """Sum of all shares and the offset, ``[K, B, T]``: the class logit of ``x_L`` for ``direct`` and ``step``."""
        return self.values.sum(dim=1) + self.offset[:, None, None]


def contributions(trace: Trace, classes: Classes, reading: str = "direct") -> Contributions:
    """What the embedding and every block's attention and MLP contribute to class logits.

    Parameters
    ----------
    trace : Trace
    classes : class, or K classes
        By index or name.
    reading : str
        ``"direct"``: ``E_c · increment``, scaled by the final norm's statistics of that token; exactly additive: with
        the offset it sums to the class logit of ``x_L``.  ``"step"``: the difference that adding it makes to the
        class logit of the residual stream (the embedding's share: ``lens(x_0)``); it telescopes to the same sum.
        ``"paper"``: the class logit of the increment itself minus that of the block's input; not additive.

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
    with torch.inference_mode():
        if reading == "direct":
            sigma = trace.lens.sigma(_final(trace))
            return Contributions(
                _raw(trace, trace.lens, wanted) / sigma, trace.lens.offset[wanted], reading, trace.layout
            )
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
                shares.append(read - logits[trace.per_block * ((n - 1) // trace.per_block)])
        values = torch.stack(shares).permute(3, 0, 1, 2)
        return Contributions(values, torch.zeros_like(trace.lens.offset[wanted]), reading, trace.layout)


def output_contributions(trace: Trace, classes: Classes) -> tuple[Tensor, Tensor]:
    """Direct contributions to the model's own output, however it pools: they sum to ``trace.output``.

    Returns
    -------
    tuple of Tensor [K, N, B] and Tensor [K]
        Shares of the increments, and the offset.
    """
    wanted = _classes(trace, classes)
    with torch.inference_mode():
        final, offset = _final(trace), trace.lens.offset[wanted]
        if trace.pooling == "mean_norm":
            weights = _pool_weights(trace)
            sigma = trace.lens.sigma(torch.einsum("btd,t->bd", final, weights))
            return torch.einsum("knbt,t->knb", _raw(trace, trace.lens, wanted), weights) / sigma, offset
        scaled = _raw(trace, trace.lens, wanted) / trace.lens.sigma(final)
        if trace.pooling == "norm_mean":
            return torch.einsum("knbt,t->knb", scaled, _pool_weights(trace)), offset
        if trace.pooling == "token":
            return scaled[..., 0], offset
        second = trace.second_lens
        assert second is not None
        other = _raw(trace, second, wanted)[..., 1] / second.sigma(final[:, 1])
        return (scaled[..., 0] + other) / 2, (offset + second.offset[wanted]) / 2


def direct_by_head(trace: Trace, block: int, classes: Classes) -> tuple[Tensor, Tensor]:
    """Split a block's direct attention contribution by head, exactly.

    Parameters
    ----------
    trace : Trace
        Taken with ``heads=True``.
    block : int
        1..L.
    classes : class, or K classes

    Returns
    -------
    tuple of Tensor [K, H, B, T] and Tensor [K, B, T]
        Shares of the heads, and of the output projection's bias; together the block's ``direct`` attention share.
    """
    wanted = _classes(trace, classes)
    if block not in trace.head_inputs:
        raise ValueError(f"heads of block {block} were not kept; trace with heads=True (or heads=[{block}])")
    weight, bias = trace.out_projection(block)
    with torch.inference_mode():
        dtype = trace.lens.folded.dtype
        sigma = trace.lens.sigma(_final(trace))
        read = (trace.lens.folded[wanted] @ weight.to(dtype)).reshape(len(wanted), trace.heads, -1)
        heads = trace.head_inputs[block].to(dtype)
        heads = heads.reshape(*heads.shape[:2], trace.heads, -1)
        share = torch.einsum("khd,bthd->khbt", read, heads) / sigma
        return share, (trace.lens.folded[wanted] @ bias.to(dtype))[:, None, None] / sigma


def direct_by_source(trace: Trace, block: int, classes: Classes, tokens: Sequence[int]) -> Tensor:
    """Split what heads contribute directly at some tokens by the token that it was read from.

    ``A_h[t, s] · (V_h[s] W_O,h) · E_c / sigma(x_L[t])``; the sum over sources s is `direct_by_head`.

    Parameters
    ----------
    trace : Trace
        Taken with ``attention=True, heads=True``.
    block : int
        1..L.
    classes : class, or K classes
    tokens : sequence of int
        The n reading tokens t.

    Returns
    -------
    Tensor [K, H, B, n, T]
    """
    wanted = _classes(trace, classes)
    if block not in trace.attention_weights:
        raise ValueError(f"attention of block {block} was not kept; trace with attention=True, heads=True")
    chosen = torch.tensor([int(t) for t in tokens], device=trace.output.device)
    weight, _ = trace.out_projection(block)
    with torch.inference_mode():
        dtype = trace.lens.folded.dtype
        sigma = trace.lens.sigma(_final(trace)[:, chosen])
        read = (trace.lens.folded[wanted] @ weight.to(dtype)).reshape(len(wanted), trace.heads, -1)
        values = torch.einsum("khd,bhsd->kbhs", read, trace.values(block).to(dtype))
        weights = trace.attention_weights[block][:, :, chosen].to(dtype)
        return torch.einsum("bhts,kbhs->khbts", weights, values) / sigma[:, :, None]


def _vectors(trace: Trace, n: int) -> Tensor:
    return trace.increments[n].to(trace.lens.folded.dtype)


def _final(trace: Trace) -> Tensor:
    return trace.stream("residual", trace.n_blocks).to(trace.lens.folded.dtype)


def _pool_weights(trace: Trace) -> Tensor:
    weights = torch.zeros_like(_vectors(trace, 0)[0, :, 0])
    weights[0 if trace.pool_prefix else len(trace.prefix) :] = 1
    return weights / weights.sum()


def _raw(trace: Trace, lens: ClassLens, classes: Tensor) -> Tensor:
    """Raw readings of all increments, ``[K, N, B, T]``."""
    raws = [lens.raw(_vectors(trace, n), classes) for n in range(len(trace.increments))]
    return torch.stack(raws).permute(3, 0, 1, 2)


def _over_blocks(
    trace: Trace,
    stream: str,
    blocks: Sequence[int] | None,
    reading: Callable[[Tensor], Tensor] | None,
    classes: Tensor | None = None,
) -> Tensor:
    """A reading of ``[B, T, C]`` logits at several blocks, ``[n, B, T]``; or the logit of each image's own class."""
    first = 0 if stream == "residual" else 1
    out = []
    with torch.inference_mode():
        for vectors in trace.points(stream, range(first, trace.n_blocks + 1) if blocks is None else blocks):
            exact = vectors.to(trace.lens.folded.dtype)
            if reading is not None:
                out.append(reading(trace.lens.logits(exact)))
            elif classes is not None:
                own = [trace.lens.logits(v, c)[:, 0] for v, c in zip(exact, classes, strict=True)]
                out.append(torch.stack(own))
    return torch.stack(out)


def _rank_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Ranks ``[B, T]`` of each image's class in ``[B, T, C]``."""
    own = torch.stack([one[:, label] for one, label in zip(logits, labels, strict=True)])
    return (logits > own).sum(dim=-1)


def _classes(trace: Trace, classes: Classes) -> Tensor:
    found = trace.class_indices(classes)
    assert found is not None
    return found


def _labels(trace: Trace, labels: Labels) -> Tensor:
    """Class indices ``[B, 1]``, one for each image."""
    found = _classes(trace, labels)
    if len(found) not in (1, trace.n_images):
        raise ValueError(f"labels must be one class or B={trace.n_images} of them, got {len(found)}")
    return found.expand(trace.n_images).unsqueeze(1)
