"""The class readings that the hidden-state studies share, from one sweep over a trace's increments.

With ``z(v) = E_hat v + sigma(v) offset`` the lens is ``z / sigma``, so ranks and top classes need only ``z``. ``E_hat v`` is
linear: two matrix products a block (attention, MLP) are enough for three streams, the residual stream being their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from classspace_widgets.lens import Readout, count_above
from classspace_widgets.trace.reading import checked_lens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from classspace_widgets.lens import FittedLens
    from classspace_widgets.points import Points
    from classspace_widgets.trace import Trace


@dataclass(frozen=True)
class HiddenReadings:
    """Readings of every stream point and token against each picture's own class.

    Attributes
    ----------
    points : Points
        The S stream points.
    label_logit : Tensor [B, S, T'], float32
        Class logit of the picture's label.
    label_rank : Tensor [B, S, T'], int64
        Classes with a strictly larger logit; 0 is best.
    top1 : Tensor [B, S, T'], int64
        The class with the largest logit.

    Notes
    -----
    Where a fitted lens has no map, the logit is NaN, rank and class are -1.

    T' = T, plus one for the mean of the image tokens where the model classifies from it, or for all that it pools.
    """

    points: Points
    label_logit: Tensor
    label_rank: Tensor
    top1: Tensor


def read_hidden(
    trace: Trace,
    labels: Tensor,
    *,
    mid: bool = False,
    chunk_bytes: int | None = None,
    lens: FittedLens | None = None,
) -> HiddenReadings:
    """Label logit, label rank and top class of every stream point and token of a trace.

    Parameters
    ----------
    trace : Trace
        B images.
    labels : Tensor [B], int64
        The class that each picture is read for.
    mid : bool
        Read also the residual stream between attention and MLP.
    chunk_bytes : int, optional
        How large the readings ``[pictures, T', C]`` of one sweep may be; by default small enough for a CPU's cache,
        and 256 MB on CUDA.
    lens : FittedLens, optional
        Read through this lens, of all classes, instead of the logit lens.

    Returns
    -------
    HiddenReadings

    Notes
    -----
    Vilas et al. 2023: identifiability is ``1 - label_rank / C``.
    """
    points = replace(trace.points, mid=mid)
    readout = Readout.of_pass(trace)
    pictures, width = trace.n_images, trace.n_tokens + int(readout.pools)
    device = trace.increments[0].device
    shape = (pictures, len(points), width)
    logit = torch.empty(shape, device=device)
    rank = torch.empty(shape, dtype=torch.int64, device=device)
    top1 = torch.empty(shape, dtype=torch.int64, device=device)
    if chunk_bytes is None:
        chunk_bytes = 256 << 20 if device.type == "cuda" else 1 << 20
    step = max(1, chunk_bytes // (4 * width * trace.n_classes))
    if lens is not None:
        lens.require_complete("ranks")
        lens = checked_lens(trace, lens)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for start in range(0, pictures, step):
            part = slice(start, min(start + step, pictures))
            own = labels[part].view(-1, 1, 1).expand(-1, width, 1)
            sweep = (
                _sweep(trace, points, readout, part)
                if lens is None
                else _sweep_fitted(trace, points, readout, part, lens)
            )
            for at, (z, sigma) in enumerate(sweep):
                mine = z.gather(-1, own)
                logit[part, at] = mine.squeeze(-1) / sigma
                rank[part, at] = count_above(z, mine).squeeze(-1)
                top1[part, at] = _argmax(z)
    if lens is not None:
        top1.masked_fill_(rank < 0, -1)
    return HiddenReadings(points, logit, rank, top1)


def _sweep(trace: Trace, points: Points, readout: Readout, part: slice) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``z [n, T', C]`` and ``sigma [n, T']`` of every stream point; ``z`` is reused, so read it at once."""
    if trace.pooling == "pool":
        yield from _sweep_pooled(trace, points, readout, part)
        return
    lens = trace.lens
    weights = torch.cat([lens.folded, lens.offset.unsqueeze(1)], dim=1).T.contiguous()

    def rows(increment: Tensor) -> Tensor:
        vectors = increment[part].to(lens.folded.dtype)
        if not readout.pools or readout.norm_first:
            return vectors
        return torch.cat([vectors, readout.mean(vectors)], dim=1)

    def shown(z: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        if not readout.norm_first:
            return z, sigma
        mean = readout.mean(z / sigma.unsqueeze(-1))
        return torch.cat([z, mean], dim=1), torch.cat([sigma, torch.ones_like(sigma[:, :1])], dim=1)

    total = rows(trace.increments[0]).clone()
    sigma_total = lens.sigma(total)
    z_total = _z(total, sigma_total, weights)
    yield shown(z_total, sigma_total)
    for number, increment in enumerate(trace.increments[1:], start=1):
        vectors = rows(increment)
        sigma = lens.sigma(vectors)
        z = _z(vectors, sigma, weights)
        total += vectors
        before, sigma_total = sigma_total, lens.sigma(total)
        z_total += z
        # The summed z carries the summed sigmas; this puts the total's own sigma in their place.
        z_total += (sigma_total - before - sigma).unsqueeze(-1) * lens.offset
        yield shown(z, sigma)
        if len(points.of_increment(number)) == 2:
            yield shown(z_total, sigma_total)


def _sweep_pooled(trace: Trace, points: Points, readout: Readout, part: slice) -> Iterator[tuple[Tensor, Tensor]]:
    """The same of a head that pools all tokens by a module: every token as if it were the only one, and all together."""
    for vectors in trace.vectors_at(points, trace.lens.dtype):
        tokens = vectors[part]
        z = torch.cat([trace.lens.logits(tokens), readout.logits(trace.lens, tokens).unsqueeze(1)], dim=1)
        yield z, torch.ones_like(z[..., 0])


def _sweep_fitted(
    trace: Trace, points: Points, readout: Readout, part: slice, lens: FittedLens
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same through a fitted lens, whose scores need no scale; NaN where it has no map."""
    for point, vectors in zip(points, trace.vectors_at((p.block, p.stream) for p in points), strict=True):
        exact = vectors[part].to(trace.lens.dtype)
        z = lens.logits(exact, point, range(trace.n_tokens))
        if readout.pools:
            z = torch.cat([z, lens.answer(exact, point, readout).unsqueeze(1)], dim=1)
        yield z, torch.ones_like(z[..., 0])


def _z(vectors: Tensor, sigma: Tensor, weights: Tensor) -> Tensor:
    return torch.cat([vectors, sigma.unsqueeze(-1)], dim=-1) @ weights


def _argmax(z: Tensor) -> Tensor:
    """The first largest entry of the last axis."""
    # On CPUs numpy's is an order of magnitude faster than torch's.
    return torch.from_numpy(z.numpy().argmax(axis=-1)) if z.device.type == "cpu" else z.argmax(dim=-1)
