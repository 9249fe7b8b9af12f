"""Stream readings through a fitted lens: every point of the residual stream has a map of its own, so nothing is summed up."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from classspace_widgets.lens.projection import PADDING_OFFSET
from classspace_widgets.lens.ranking import padded_classes
from classspace_widgets.space.streaming import Reader, StreamReadings, read_pass

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.lens import FittedLens
    from classspace_widgets.space.space import ClassSpace

_made: weakref.WeakKeyDictionary[FittedLens, FittedProjection] = weakref.WeakKeyDictionary()


class FittedProjection:
    """The maps of a fitted lens over padded classes, laid out for products.

    Attributes
    ----------
    weights : Tensor [N, Q, D, C']
    offsets : Tensor [N, Q, C']
    padding : Tensor [C']
        0 for the model's classes, far below every score for padding classes.
    """

    def __init__(self, lens: FittedLens) -> None:
        points, kinds, count, width = lens.weights.shape
        size = padded_classes(count)
        self.weights = lens.weights.new_zeros((points, kinds, width, size))
        self.weights[..., :count] = lens.weights.transpose(2, 3)
        self.padding = lens.weights.new_full((size,), PADDING_OFFSET)
        self.padding[:count] = 0
        self.offsets = self.padding.expand(points, kinds, -1).clone()
        self.offsets[..., :count] = lens.offsets

    @classmethod
    def of(cls, lens: FittedLens) -> FittedProjection:
        """The projection of a lens, made once."""
        if lens not in _made:
            _made[lens] = cls(lens)
        return _made[lens]


class FittedReader(Reader):
    """Reads increments as they come, and the residual stream after each, with the maps of a fitted lens.

    Parameters
    ----------
    space : ClassSpace
    classes : Tensor [B, K]
    k : int
    lens : FittedLens
        On the space's device, of all classes.
    """

    def __init__(self, space: ClassSpace, classes: Tensor, k: int, lens: FittedLens) -> None:
        super().__init__(space, classes, k, "float32")
        self.fitted, self.maps = lens, FittedProjection.of(lens)
        self.prefix = len(lens.prefix)

    @property
    def offset(self) -> Tensor:
        """Offset ``[C']``: the logit lens need not be linear here."""
        return self.maps.padding

    def _at_once(self) -> None:
        self._piece(slice(0, len(self.total)))

    def _piece(self, part: slice) -> None:
        size, several = part.stop - part.start, len(self.waiting)
        total, columns = self.total[part], len(self.maps.padding)
        first = self.n - several
        kinds = 1 if first == 0 else 2
        sigma = self.sigma.new_ones((kinds, several, size))
        scores = self.scores[: kinds * several * size * columns].view(kinds, several, size, columns)
        for i, increment in enumerate(self.waiting):
            rows = increment[part].to(total.dtype)
            total += rows
            if kinds == 2:
                self._score(first + i, rows, scores[0, i], sigma[0, i], part, whole=False)
            self._score(first + i, total, scores[-1, i], sigma[-1, i], part, whole=True)
        self._take_in(first, part, sigma, scores)

    def _score(self, number: int, rows: Tensor, scores: Tensor, sigma: Tensor, part: slice, *, whole: bool) -> None:
        """Scores ``[n, C']`` of rows ``[n, D]``: all with the map of image tokens, then those of prefix tokens once more."""
        for kind in (self.prefix, *range(self.prefix)):
            some = slice(None) if kind == self.prefix else slice((kind - part.start) % self.tokens, None, self.tokens)
            if not bool(self.fitted.defined[number, kind]):
                scores[some] = self.maps.padding
            elif self.fitted.logit is not None and bool(self.fitted.classifier[number, kind]):
                sigma[some] = self.lens.quick_sigma(rows[some])
                scores[some] = self.project(rows[some]) + sigma[some].unsqueeze(1) * self.project.offset
            else:
                sigma[some] = 1
                added = self.maps.offsets[number, kind] if whole else self.maps.padding
                scores[some] = torch.addmm(added, rows[some], self.maps.weights[number, kind])

    def result(self, output: Tensor) -> StreamReadings:
        """Everything read, as ``[S, B, T, ...]``; NaN and -1 where the lens has no map."""
        found = super().result(output)
        numbers = [self.points.increment(point.stream, point.block) for point in self.points]
        kinds = self.fitted.kinds(range(self.tokens))
        unknown = ~self.fitted.defined[numbers][:, kinds]
        if bool(unknown.any()):
            hidden = unknown.to(found.logits.device)[:, None, :, None]
            for values, nothing in (
                (found.logits, torch.nan),
                (found.ranks, -1),
                (found.top_logits, torch.nan),
                (found.top_classes, -1),
            ):
                values.masked_fill_(hidden, nothing)
        return found


def read_fitted(space: ClassSpace, lens: FittedLens, pixels: Tensor, classes: Tensor, k: int) -> StreamReadings:
    """Class score, rank and top classes of every stream point through a fitted lens; sizes as in `stream_readings`."""
    return read_pass(space, pixels, FittedReader(space, classes, k, lens))
