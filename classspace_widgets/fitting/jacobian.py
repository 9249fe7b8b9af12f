"""The Jacobian lens: the class embedding carried back through the blocks by the mean Jacobian of the answer.

For class c and residual stream point n, with the sum over the tokens t of a kind (all image tokens, or one prefix token),

    w_n,c = mean over pictures of  sum over t of  d logit_c / d x_n[t]
    score = w_n,c . (x_n[t] - mean x_n) + mean logit_c.

The score is the logit that the model would give, to first order and on average, if every token of the kind were this one
and all others were average.  It follows the answer's use of a token, where the logit lens and a probe ask what is written in
it.  The idea is the Jacobian lens of language models (Gurnee et al. 2026); here a map belongs to a class instead of a
vocabulary, and image tokens have one of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from classspace_widgets.fitting.passes import Target, adding, residual_points, stream_values
from classspace_widgets.models import UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from classspace_widgets.fitting.passes import FittedSpace


@dataclass
class JacobianSums:
    """Sums over pictures from which a Jacobian lens follows; sums of parts of the data add up.

    Attributes
    ----------
    slopes : Tensor [N, Q, R, D], float64
        Jacobians of the target (R rows) by the residual stream at N points, summed over the tokens of Q kinds and over
        pictures.
    squares : Tensor [N, Q], float64
        Squared length of each picture's Jacobian, summed over pictures.
    states : Tensor [N, Q, D], float64
        Mean token of each picture, summed over pictures.
    answers : Tensor [R], float64
        Targets, summed over pictures.
    pictures : int
    """

    slopes: Tensor
    squares: Tensor
    states: Tensor
    answers: Tensor
    pictures: int = 0

    @classmethod
    def empty(cls, points: int, kinds: int, rows: int, width: int, *, device: torch.device | str = "cpu") -> Self:
        """Nothing seen yet."""
        shapes = ((points, kinds, rows, width), (points, kinds), (points, kinds, width), (rows,))
        slopes, squares, states, answers = (torch.zeros(s, dtype=torch.float64, device=device) for s in shapes)
        return cls(slopes, squares, states, answers)

    def add(self, space: FittedSpace, target: Target, pixels: Tensor) -> None:
        """Take in pictures ``[B, 3, height, width]``: one pass forward, and one back for each row of the target."""
        prefix = len(space.adapter.prefix)
        points = residual_points(space, pixels, gradients=True)
        with torch.enable_grad():
            answers = target.of(space, points[-1])
            columns = answers.unbind(dim=1)
        # The first pass back takes as much memory as any other: if it runs out, nothing has been added yet.
        slopes = _slopes(space, columns[0], points, last=target.rows == 1)
        with adding():
            for row in range(target.rows):
                if row:
                    slopes = _slopes(space, columns[row], points, last=row + 1 == target.rows)
                # [N, B, Q, D]: the prefix tokens one by one, the image tokens together.
                by_kind = torch.stack(
                    [torch.cat([s[:, :prefix], s[:, prefix:].sum(dim=1, keepdim=True)], dim=1) for s in slopes]
                ).double()
                self.slopes[:, :, row] += by_kind.sum(dim=1)
                self.squares += by_kind.square().sum(dim=(1, 3))
            for number, value in enumerate(stream_values(points, sequential=space.adapter.points.sequential)):
                mean = torch.cat([value[:, :prefix], value[:, prefix:].mean(dim=1, keepdim=True)], dim=1)
                self.states[number] += mean.double().sum(dim=0)
            self.answers += answers.detach().double().sum(dim=0)
        self.pictures += len(pixels)

    def merge(self, other: Self) -> Self:
        """The sums of both parts of the data."""
        names = ("slopes", "squares", "states", "answers", "pictures")
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def solve(self, space: FittedSpace, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """Maps ``[N, Q, K, D]``, offsets ``[N, Q, K]``, and standard errors of the maps ``[N, Q]`` relative to their length."""
        mean, answers = self.slopes / self.pictures, self.answers / self.pictures
        length = mean.square().sum(dim=(2, 3))
        spread = (self.squares / self.pictures - length).clamp_min(0) / max(self.pictures - 1, 1)
        error = (spread / length).sqrt() if self.pictures > 1 else torch.full_like(length, torch.nan)
        maps, logits = target.to_classes(space, mean, answers)
        offsets = logits - torch.einsum("nqkd,nqd->nqk", maps, self.states / self.pictures)
        return maps, offsets, error


def _slopes(space: FittedSpace, answers: Tensor, points: list[Tensor], *, last: bool) -> list[Tensor]:
    """Gradients of each picture's answer ``[B]`` by its residual stream at every point; zero where nothing depends on it."""
    if answers.grad_fn is None:
        raise UnsupportedModelError(_UNSEEN.format(name=space.name))
    try:
        # Pictures do not see one another, so the gradient of the sum holds those of each.
        found = torch.autograd.grad(answers, points, torch.ones_like(answers), retain_graph=not last, allow_unused=True)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        raise UnsupportedModelError(_UNSEEN.format(name=space.name)) from error
    return [torch.zeros_like(p) if f is None else f for f, p in zip(found, points, strict=True)]


_UNSEEN = (
    "{name} runs its blocks where autograd cannot follow (torch.no_grad, or reentrant gradient checkpointing), so the answer "
    "cannot be differentiated; switch that off in the model, or fit another lens: space.fit_lens('translator', pictures)"
)
