"""The translator lens: ridge regression from a token's state to the answer, the closed form of a tuned lens.

For residual stream point n and a kind of tokens, an affine map from the token's state to the state in front of the
classifier (or to the logits, which is the same, since the classifier is linear), fitted without labels on all tokens of the
kind.  It shows what can be decoded from a token, whether the model uses it or not: attention broadcasts the answer, so the
class can be decoded from tokens far from the object.  With labels as the target (1 for a picture's own class, 0 for the others) it
is a linear probe, whose scores are shares: `probing` fits the same regression for every token by itself, and measures it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from classspace_widgets.fitting.passes import adding

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

PENALTIES = tuple(10.0**power for power in range(-5, 2))
"""Ridge penalties tried, as shares of the mean variance of a state's coordinates: from nearly none to a strong pull."""

ROUNDING = 1e-10
"""Share of a state's mean square below which its variance is rounding: sums of float32 states keep some seven digits."""


@dataclass
class TranslatorSums:
    """Sums over pictures, in two halves, from which ridge maps and their penalty follow; parts of the data add up.

    The tokens of a kind share the weight of their picture, so that every picture counts the same.

    Attributes
    ----------
    gram : Tensor [2, N, Q, D, D], float64
        ``x x'`` of tokens, of the two halves of the pictures.
    cross : Tensor [2, N, Q, D, R], float64
        ``x y'`` with the target y of the picture.
    states : Tensor [2, N, Q, D], float64
    targets, squares : Tensor [2, R], float64
        Sums of ``y`` and ``y * y``.
    pictures : Tensor [2], float64
    """

    gram: Tensor
    cross: Tensor
    states: Tensor
    targets: Tensor
    squares: Tensor
    pictures: Tensor

    @classmethod
    def empty(cls, points: int, kinds: int, rows: int, width: int, *, device: torch.device | str = "cpu") -> Self:
        """Nothing seen yet."""
        shapes = (
            (points, kinds, width, width),
            (points, kinds, width, rows),
            (points, kinds, width),
            (rows,),
            (rows,),
            (),
        )
        return cls(*(torch.zeros((2, *shape), dtype=torch.float64, device=device) for shape in shapes))

    def add(self, streams: list[Tensor], targets: Tensor, prefix: int, *, first: int) -> None:
        """Take in residual streams ``[B, T, D]`` of N points and targets ``[B, R]`` of pictures numbered from ``first`` on."""
        with adding():
            self._add(streams, targets.detach().double(), prefix, first)

    def _add(self, streams: list[Tensor], y: Tensor, prefix: int, first: int) -> None:
        for h in (0, 1):
            # Every other picture, wherever batches begin.
            rows = slice((h - first) % 2, None, 2)
            wanted = y[rows]
            if len(wanted) == 0:
                continue
            for number, stream in enumerate(streams):
                x = stream[rows].detach().double()
                for kind in range(prefix + 1):
                    tokens = x[:, kind : kind + 1] if kind < prefix else x[:, prefix:]
                    flat = tokens.reshape(-1, tokens.shape[-1])
                    mean = tokens.mean(dim=1)
                    self.gram[h, number, kind] += flat.T @ flat / tokens.shape[1]
                    self.cross[h, number, kind] += mean.T @ wanted
                    self.states[h, number, kind] += mean.sum(dim=0)
            self.targets[h] += wanted.sum(dim=0)
            self.squares[h] += wanted.square().sum(dim=0)
            self.pictures[h] += len(wanted)

    def merge(self, other: Self) -> Self:
        """The sums of both parts of the data."""
        names = ("gram", "cross", "states", "targets", "squares", "pictures")
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def solve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Maps ``[N, Q, R, D]``, offsets ``[N, Q, R]``, and standard errors ``[N, Q]`` relative to the maps' length.

        The penalty of each map is the one whose fit on one half of the pictures predicts the other half best.
        """
        device = self.cross.device
        if device.type != "cpu":
            # Every map is decided about in Python, and its matrices are small: elsewhere that would mostly be waiting.
            here = type(self)(*(getattr(self, f.name).cpu() for f in fields(self)))
            maps, offsets, errors = here.solve()
            return maps.to(device), offsets.to(device), errors
        _, points, kinds, width, rows = self.cross.shape
        maps = self.cross.new_zeros(points, kinds, rows, width)
        offsets = self.cross.new_zeros(points, kinds, rows)
        errors = self.cross.new_full((points, kinds), torch.nan)
        halves = [half for half in (0, 1) if self.pictures[half] > 0]
        for number in range(points):
            for kind in range(kinds):
                whole = self._system(number, kind, halves)
                parts = [self._system(number, kind, [half]) for half in halves]
                penalty = PENALTIES[-1]
                if len(parts) == 2:
                    losses = [sum(test.loss(*train.fit(p)) for train, test in (parts, parts[::-1])) for p in PENALTIES]
                    penalty = PENALTIES[int(torch.tensor(losses).argmin())]
                    one, two = (part.fit(penalty)[0] for part in parts)
                weights, bias = whole.fit(penalty)
                maps[number, kind], offsets[number, kind] = weights, bias
                if len(parts) == 2 and bool(weights.norm() > 0):
                    errors[number, kind] = (one - two).norm() / 2 / weights.norm()
        return maps, offsets, errors

    def _system(self, number: int, kind: int, halves: list[int]) -> _System:
        count = self.pictures[halves].sum()
        return _System(
            self.gram[halves, number, kind].sum(0) / count,
            self.cross[halves, number, kind].sum(0) / count,
            self.states[halves, number, kind].sum(0) / count,
            self.targets[halves].sum(0) / count,
            self.squares[halves].sum(0) / count,
        )


class _System:
    """The normal equations of one map, in the eigenbasis of the states' covariance: any penalty costs one product."""

    def __init__(self, gram: Tensor, cross: Tensor, state: Tensor, target: Tensor, square: Tensor) -> None:
        self.gram, self.cross, self.state, self.target, self.square = gram, cross, state, target, square
        covariance = gram - torch.outer(state, state)
        self.values, self.basis = torch.linalg.eigh(covariance)
        self.values = self.values.clamp_min(0)
        self.projected = self.basis.T @ (cross - torch.outer(state, target))

    def fit(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights ``[R, D]`` and bias ``[R]``."""
        scale = self.values.mean()
        # A token that is the same in every picture, such as [CLS] in the embedding, varies only by rounding.
        if not scale > ROUNDING * self.gram.diagonal().mean():
            return torch.zeros_like(self.cross.T), self.target
        weights = (self.basis @ (self.projected / (self.values + penalty * scale).unsqueeze(1))).T
        return weights, self.target - weights @ self.state

    def loss(self, weights: Tensor, bias: Tensor) -> float:
        """Mean squared error of a fit on this part of the data."""
        residual = self.square.sum() - 2 * self.target @ bias + bias @ bias
        residual = residual - 2 * torch.einsum("rd,dr->", weights, self.cross - torch.outer(self.state, bias))
        return float(residual + torch.einsum("rd,de,re->", weights, self.gram, weights))
