"""One image of a trace read through fitted lenses: the arrays and meta data that a snapshot carries of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from classspace_widgets.capture.reader import TOP, as_float, fitting
from classspace_widgets.lens import FittedLens, count_above
from classspace_widgets.snapshot.lenses import lens_array, number_type
from classspace_widgets.trace.reading import checked_lens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from classspace_widgets.capture.reader import Reader
    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import LensMeta


def read_lenses(
    reader: Reader, lenses: Sequence[FittedLens], classes: Sequence[int], *, summary: bool = False
) -> dict[str, Array]:
    """Class logits and ranks of some classes at every stream point through each lens; see ``docs/snapshot_format.md``.

    With ``summary``, also the best classes and the log-sum-exp over all of them.
    """
    found: dict[str, Array] = {}
    for number, lens in enumerate(lenses):
        parts = _read(reader, checked_lens(reader.trace, lens), list(classes), summary=summary)
        found |= {lens_array(number, part): array for part, array in parts.items()}
    return found


def _read(reader: Reader, lens: FittedLens, classes: list[int], *, summary: bool) -> dict[str, Array]:
    place = {index: n for n, index in enumerate(lens.classes)}
    known = [c for c in classes if c in place]
    columns, rows = [place[c] for c in known], [classes.index(c) for c in known]
    size = (len(reader.trace.points), reader.n_tokens)
    logits = np.full((len(classes), *size), np.nan, np.float32)
    small = number_type(reader.n_classes)
    none, k = np.iinfo(small).max, min(TOP, reader.n_classes)
    ranks = np.full((len(classes), *size), none, small)
    top, top_logits = np.full((*size, k), none, small), np.full((*size, k), np.nan, np.float32)
    lse = np.full(size, np.nan, np.float32)
    for point, scores in enumerate(_scores(reader, lens)):
        logits[rows, point] = as_float(scores[:, columns].T)
        if not lens.complete:
            continue
        above = count_above(scores, scores[:, classes]).T
        ranks[:, point] = torch.where(above < 0, none, above).cpu().numpy()
        if summary:
            best = scores.topk(k, dim=-1)
            unread = scores[:, :1].isnan()
            top[point] = torch.where(unread, none, best.indices).cpu().numpy()
            top_logits[point] = as_float(torch.where(unread, torch.nan, best.values))
            lse[point] = as_float(scores.logsumexp(dim=-1))
    found = {"logits": fitting(logits)}
    if lens.complete:
        found["ranks"] = ranks
        if summary:
            found |= {"top": top, "top_logits": fitting(top_logits), "lse": lse}
    return found


def _scores(reader: Reader, lens: FittedLens) -> Iterator[Tensor]:
    """Class scores ``[T', K]`` of every stream point; the pooled token is read as an image token."""
    trace, sigma = reader.trace, reader.sigma()
    image = len(trace.prefix)
    tokens = [*range(trace.n_tokens), image][: reader.n_tokens]
    weights = reader.readout.weights.to(sigma)
    for number, (point, vectors) in enumerate(zip(trace.points, reader.vectors_at_points(), strict=True)):
        scores = lens.logits(vectors, point, tokens)
        if reader.readout.norm_first:
            # The reader's pooled vector holds the final norm's scale, which only the classifier wants.
            if bool(lens.classifier[lens.points.increment(point.stream, point.block), image]):
                pooled = reader.lens.raw(vectors[-1]) / sigma[number, -1] + reader.lens.offset
                scores[-1] = pooled[list(lens.classes)]
            else:
                scores[-1] = weights @ torch.where(weights.unsqueeze(1) == 0, 0.0, scores[:-1])
        yield scores


def lens_metas(reader: Reader, lenses: Sequence[FittedLens]) -> list[LensMeta]:
    """What a snapshot says of each lens."""
    points = reader.trace.points
    image = len(reader.trace.prefix)
    found: list[LensMeta] = []
    for number, lens in enumerate(lenses):
        same = sum(other.kind == lens.kind for other in lenses[:number])
        errors = [float(lens.error[points.increment(point.stream, point.block), image]) for point in points]
        found.append(
            {
                "kind": lens.kind,
                "label": f"{lens.kind} {same + 1}" if same else lens.kind,
                "question": lens.question,
                "pictures": lens.n_pictures,
                "classes": None if lens.complete else list(lens.classes),
                "error": [_number(error) for error in errors],
                "trust": {measure: [_number(v) for v in values] for measure, values in lens.trust.items()},
            }
        )
    return found


def _number(value: float) -> float | None:
    """A number to three digits, as JSON has them; None for NaN."""
    return None if math.isnan(value) else float(f"{value:.3g}")


def several_lenses(lenses: FittedLens | Sequence[FittedLens]) -> tuple[FittedLens, ...]:
    """One lens or several as a tuple.

    Raises
    ------
    TypeError
        For what is no fitted lens.
    """
    given = (lenses,) if isinstance(lenses, FittedLens) else tuple(lenses)
    for lens in given:
        if not isinstance(lens, FittedLens):
            raise TypeError(
                f"lenses must be fitted lenses, got {type(lens).__name__}; fit one with space.fit_lens('jacobian', pictures) "
                "(the logit lens is always there)"
            )
    return given
