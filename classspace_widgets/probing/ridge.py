"""Ridge classifiers of many stream points and positions, from sums over batches and parts of the data.

A ridge classifier needs only ``X'X``, ``X'Y`` and a few sums, so one pass over the data is enough for all blocks, streams
and penalties (the linear probes of Vilas et al. 2023, appendix).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from classspace_widgets.describe import short_repr
from classspace_widgets.points import Point
from classspace_widgets.progress import over


@dataclass
class RidgeSums:
    """Sufficient statistics of ridge regressions, for S stream points and Q positions.

    Made by `collect_sums`.

    Attributes
    ----------
    n_classes : int
        C.
    gram : Tensor [S, Q, D, D], float64
        ``X'X``.
    cross : Tensor [S, Q, D, C], float64
        ``X'Y`` with one-hot ``Y``: sums of vectors by class.
    counts : Tensor [Q, C], float64
        Examples of each class.
    points : tuple of (block, stream)
    """

    __repr__ = short_repr

    n_classes: int
    gram: Tensor
    cross: Tensor
    counts: Tensor
    points: tuple[Point, ...] = ()

    @classmethod
    def empty(
        cls, points: Sequence[Point], positions: int, width: int, n_classes: int, device: Any = "cpu"
    ) -> RidgeSums:
        """Sums over no data."""
        s = len(points)
        options = {"dtype": torch.float64, "device": device}
        return cls(
            n_classes,
            torch.zeros(s, positions, width, width, **options),
            torch.zeros(s, positions, width, n_classes, **options),
            torch.zeros(positions, n_classes, **options),
            tuple(points),
        )

    def add(self, point: int, vectors: Tensor, labels: Tensor) -> None:
        """Add ``vectors [B, Q', D]`` of one stream point; with Q = 1 all Q' tokens are examples of one probe.

        In float64: many models have a few very large activations, beside which float32 would lose the others.
        """
        x = vectors.double()
        one_hot = torch.nn.functional.one_hot(labels, self.n_classes).to(x.dtype)
        if self.gram.shape[1] == 1:
            tokens = x.shape[1]
            flat = x.reshape(-1, x.shape[-1])
            self.gram[point, 0] += flat.T @ flat
            self.cross[point, 0] += x.sum(dim=1).T @ one_hot
            if point == 0:
                self.counts[0] += one_hot.sum(dim=0) * tokens
            return
        by_token = x.transpose(0, 1)
        self.gram[point] += by_token.transpose(1, 2) @ by_token
        self.cross[point] += by_token.transpose(1, 2) @ one_hot
        if point == 0:
            self.counts += one_hot.sum(dim=0)

    def merge(self, other: RidgeSums) -> RidgeSums:
        """Sums over the data of both."""
        if (self.points, self.gram.shape, self.cross.shape) != (other.points, other.gram.shape, other.cross.shape):
            raise ValueError("only sums of the same points, positions, width and classes can be merged")
        return RidgeSums(
            self.n_classes,
            self.gram + other.gram,
            self.cross + other.cross,
            self.counts + other.counts,
            self.points,
        )

    def solve(self, penalty: float = 1.0) -> RidgeProbes:
        """Ridge classifiers from the sums, with an unpenalised intercept; one Cholesky factorisation for each point and position.

        Parameters
        ----------
        penalty : float
            ``alpha`` of scikit-learn's ``Ridge``; targets are one-hot.

        Raises
        ------
        ValueError
            If there are fewer examples than classes, or the system is singular.
        """
        if not penalty >= 0:
            raise ValueError(f"penalty must not be negative, got {penalty}")
        examples = self.counts.sum(dim=-1)
        if (examples < self.n_classes).any():
            raise ValueError(
                f"a probe of {self.n_classes} classes needs at least as many examples, got {int(examples.min())}; "
                "use more pictures, or share one probe over all tokens: per_position=False"
            )
        total = self.cross.sum(dim=-1, keepdim=True)  # [S, Q, D, 1]: every vector has one class
        n = examples.view(1, -1, 1, 1)
        centred = self.gram - total @ total.transpose(-1, -2) / n
        centred.diagonal(dim1=-2, dim2=-1).add_(penalty)
        rate = (self.counts / examples.unsqueeze(-1)).unsqueeze(0).unsqueeze(2)  # [1, Q, 1, C]
        target = self.cross - total @ rate
        weights = torch.empty_like(self.cross)
        # One block at a time, to bound the memory of the factors.
        for s in over(range(len(self.points)), len(self.points), "solving", "block"):
            factor, failed = torch.linalg.cholesky_ex(centred[s])
            if failed.any():
                raise ValueError(
                    f"the system of block {self.points[s][0]} ({self.points[s][1]}) is singular with penalty {penalty}; "
                    "raise the penalty, or use more examples than the width of a token"
                )
            weights[s] = torch.cholesky_solve(target[s], factor)
        bias = (rate - (total / n).transpose(-1, -2) @ weights).squeeze(-2)
        return RidgeProbes(self.points, weights.float(), bias.float(), penalty)


@dataclass(frozen=True)
class RidgeProbes:
    """Fitted ridge classifiers.

    Made by `fit_probes` and `RidgeSums.solve`.

    Attributes
    ----------
    points : tuple of (block, stream)
    weights : Tensor [S, Q, D, C]
        Q = T' token positions, or 1 for a probe shared by all.
    bias : Tensor [S, Q, C]
    penalty : float
    positions : tuple of int
        The token of each position; empty for a shared probe.
    """

    __repr__ = short_repr

    points: tuple[Point, ...]
    weights: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    penalty: float = 1.0
    positions: tuple[int, ...] = ()

    def scores(self, vectors: Tensor, block: int, stream: str = "residual") -> Tensor:
        """Scores ``[B, Q', C]`` of vectors ``[B, Q', D]`` of one stream point; the largest is the probe's answer."""
        if (block, stream) not in self.points:
            raise ValueError(
                f"no probe of block {block}, {stream}; the probes are those of {', '.join(map(str, self.points))}"
            )
        at = self.points.index((block, stream))
        weights, bias = self.weights[at].to(vectors.device), self.bias[at].to(vectors.device)
        if len(weights) not in (1, vectors.shape[1]):
            raise ValueError(f"vectors must have {len(weights)} positions (axis 1), got {vectors.shape[1]}")
        return torch.einsum("bqd,qdc->bqc", vectors.float(), weights.expand(vectors.shape[1], -1, -1)) + bias
