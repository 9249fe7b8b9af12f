"""Stream readings of models whose head pools all tokens by a module: each token read as if it were the only one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.lens import class_ranks
from classspace_widgets.space.streaming import StreamReadings

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace


def read_pooled(space: ClassSpace, pixels: Tensor, classes: Tensor, k: int) -> StreamReadings:
    """Class logit, rank and top classes of every stream point, read point by point from a trace.

    Readings of attention and MLP do not add up to those of the residual stream here, so nothing is shared between points.

    Parameters
    ----------
    space : ClassSpace
    pixels : Tensor [B, 3, height, width]
    classes : Tensor [B, K]
    k : int

    Returns
    -------
    StreamReadings
    """
    trace = space.trace_pixels(pixels)
    found: list[tuple[Tensor, ...]] = []
    for vectors in trace.vectors_at(trace.points):
        logits = space.lens.logits(vectors)
        best = logits.topk(k, dim=-1)
        own = logits.gather(2, classes[:, None, :].expand(-1, logits.shape[1], -1))
        ranks = torch.stack([class_ranks(one, row) for one, row in zip(logits, classes, strict=True)])
        found.append((own, ranks.int(), best.indices.int(), best.values))
    read, ranks, top_classes, top_logits = (torch.stack(parts) for parts in zip(*found, strict=True))
    return StreamReadings(
        classes=classes,
        logits=read,
        ranks=ranks,
        top_classes=top_classes,
        top_logits=top_logits,
        output=trace.output,
        n_classes=space.n_classes,
        points=trace.points,
        class_names=tuple(space.class_names),
    )
