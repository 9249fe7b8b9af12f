"""Readings of a trace at one stream point or at several, through the model's own lens or a fitted one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.lens import Readout, class_ranks
from classspace_widgets.lookup import items_of, whole_number
from classspace_widgets.models.fingerprint import known_fingerprint
from classspace_widgets.points import Point
from classspace_widgets.progress import over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from torch import Tensor

    from classspace_widgets.lens import ClassLens, FittedLens
    from classspace_widgets.lens.fitted import PointLens
    from classspace_widgets.trace.trace import Blocks, Trace


def read_at(
    trace: Trace,
    stream: str,
    block: Blocks,
    tokens: Sequence[int] | slice | None,
    reading: Callable[[Tensor, ClassLens | PointLens], Tensor],
    lens: FittedLens | None = None,
) -> Tensor:
    """A reading of the chosen tokens at one block, or at several, stacked.

    ``reading`` takes vectors ``[B, t, D]`` and the lens to read them through at their stream point.
    """
    blocks, single = trace.blocks_of(block, trace.points.first_block(stream))
    chosen = tokens if isinstance(tokens, slice) else _token_indices(trace, tokens)
    lenses: list[ClassLens | PointLens] = [trace.lens] * len(blocks)
    if lens is not None:
        numbers = list(range(trace.n_tokens))[chosen] if isinstance(chosen, slice) else chosen.tolist()
        fitted = checked_lens(trace, lens)
        lenses = [fitted.at(Point(b, stream), numbers) for b in blocks]
    with torch.no_grad():
        found = trace.vectors_at((b, stream) for b in blocks)
        shown = over(found, len(blocks), "reading", "block")
        read = [reading(v[:, chosen].to(trace.lens.dtype), here) for v, here in zip(shown, lenses, strict=True)]
        return read[0] if single else torch.stack(read)


def read_answer(trace: Trace, vectors: Tensor, point: Point, lens: FittedLens | None = None) -> Tensor:
    """The class logits ``[B, C]`` of a whole stream ``[B, T, D]``, pooled as the model pools: see `Trace.readout`."""
    readout = Readout.of_pass(trace)
    if lens is None:
        return readout.logits(trace.lens, vectors, trace.second_lens)
    with torch.no_grad():
        return checked_lens(trace, lens).answer(vectors.to(trace.lens.dtype), point, readout)


def checked_lens(trace: Trace, lens: FittedLens) -> FittedLens:
    """A fitted lens on the trace's device, if it is one of this model."""
    weights = "" if trace.space is None else known_fingerprint(trace.space.model)
    lens.check(trace.class_names, trace.prefix, trace.points, weights)
    return lens.to(trace.output.device)


def _token_indices(trace: Trace, tokens: Sequence[int] | None) -> slice | Tensor:
    if tokens is None:
        return slice(None)
    chosen = [whole_number(t, "token", 0, trace.n_tokens - 1) for t in items_of(tokens)[0]]
    return torch.tensor(chosen, dtype=torch.long, device=trace.output.device)


def answers_table(trace: Trace, k: int) -> pd.DataFrame:
    """The ``k`` best classes of every picture as a table: see `Trace.predictions`."""
    import pandas as pd

    shares, classes = trace.answers(k)
    logits = trace.output.float().gather(1, classes)
    ranks = class_ranks(trace.output.float()).gather(1, classes)
    names = [trace.image_names[i] if i < len(trace.image_names) else "" for i in range(trace.n_images)]
    return pd.DataFrame(
        {
            "image": [i for i in range(trace.n_images) for _ in range(shares.shape[1])],
            "name": [name for name in names for _ in range(shares.shape[1])],
            "rank": ranks.flatten().tolist(),
            "class_index": classes.flatten().tolist(),
            "class_name": [trace.class_names[c] for c in classes.flatten().tolist()],
            "logit": logits.flatten().tolist(),
            "probability": shares.flatten().tolist(),
        }
    )
