"""How a model pools its answer: from which tokens of the last residual stream it is read, and in which order.

There are five ways, named by ``pooling``:

============== ==================================================================================
``token``      the lens of the first token
``distilled``  the mean of the first token's lens and of the second token's, through its own classifier
``mean_norm``  the lens of the mean token
``norm_mean``  the mean of the tokens' lenses
``pool``       a module of the model's own, over all tokens at once (`PooledLens`)
============== ==================================================================================

Everything that reads the answer, or a part of it, asks a `Readout`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch

from classspace_widgets.lookup import whole_number

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.lens.lens import ClassLens

LINEAR_POOLINGS = ("token", "distilled", "mean_norm", "norm_mean")
"""Those in which the answer is a sum of what tokens, heads and blocks contribute."""

POOLINGS = (*LINEAR_POOLINGS, "pool")


def pools(pooling: str) -> bool:
    """Whether an answer is read from many tokens together, not from one or two of them."""
    return pooling not in ("token", "distilled")


class Pooling(Protocol):
    """What a readout must know of a model; an `Adapter` and a `Trace` both say it."""

    @property
    def pooling(self) -> str:
        """One of `POOLINGS`."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """Names of the prefix tokens."""

    @property
    def pool_prefix(self) -> bool:
        """Whether a mean runs over the prefix tokens too."""


class PooledPass(Pooling, Protocol):
    """What a readout must know of a pass; a `Trace` says it."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens T."""

    @property
    def kept_tokens(self) -> tuple[int, ...] | None:
        """Which tokens were left, where some were removed."""


@dataclass(frozen=True)
class Readout:
    """From which of T tokens an answer is read, and how.

    Attributes
    ----------
    n_tokens : int
        T.
    tokens : tuple of int
        The tokens that are pooled, or the single token that is read.
    pooling : str
        One of `POOLINGS`.
    """

    n_tokens: int
    tokens: tuple[int, ...]
    pooling: str

    @classmethod
    def of(cls, model: Pooling, n_tokens: int) -> Readout:
        """The model's own, of a pass of ``n_tokens`` tokens."""
        first = 0 if model.pool_prefix else len(model.prefix)
        return cls(n_tokens, tuple(range(first, n_tokens)) if pools(model.pooling) else (0,), model.pooling)

    @classmethod
    def of_pass(cls, trace: PooledPass) -> Readout:
        """The model's own, of a trace; tokens that were removed take no part in a mean."""
        whole = cls.of(trace, trace.n_tokens)
        # Where the trace holds only the kept tokens, they are numbered anew, and all take part.
        if not whole.pools or trace.kept_tokens is None or len(trace.kept_tokens) == trace.n_tokens:
            return whole
        left = set(trace.kept_tokens)
        return cls(whole.n_tokens, tuple(t for t in whole.tokens if t in left), whole.pooling)

    @classmethod
    def at(cls, token: int, n_tokens: int) -> Readout:
        """A single token's."""
        return cls(n_tokens, (whole_number(token, "token", 0, n_tokens - 1),), "token")

    @property
    def pools(self) -> bool:
        """Whether the answer is read from many tokens together."""
        return pools(self.pooling)

    @property
    def norm_first(self) -> bool:
        """Whether tokens are normalised before their mean is taken."""
        return self.pooling == "norm_mean"

    @property
    def place(self) -> int:
        """Where the answer stands on an axis T' that has the mean as its last: at a token, or at the mean."""
        return self.n_tokens if self.pools else self.tokens[0]

    @cached_property
    def weights(self) -> Tensor:
        """Weights ``[T]`` over tokens that sum to 1 (one of them 1 for a single token), float64 on the CPU."""
        weights = torch.zeros(self.n_tokens, dtype=torch.float64, device="cpu")
        weights[list(self.tokens)] = 1.0 / len(self.tokens)
        return weights

    @cached_property
    def _selection(self) -> slice | list[int]:
        """The tokens as an index; a slice, which copies nothing, where they are in one run."""
        first, last = self.tokens[0], self.tokens[-1]
        return slice(first, last + 1) if len(self.tokens) == last + 1 - first else list(self.tokens)

    def logits(self, lens: ClassLens, stream: Tensor, second: ClassLens | None = None) -> Tensor:
        """The answer's class logits ``[B, C]`` from a last residual stream ``[B, T, D]``.

        Parameters
        ----------
        lens : ClassLens
        stream : Tensor [B, T, D]
        second : ClassLens, optional
            The lens of a distilled model's second classifier.

        Returns
        -------
        Tensor [B, C]

        Examples
        --------
        >>> from classspace_widgets.lens import ClassLens
        >>> lens = ClassLens(torch.eye(2), torch.zeros(2), centred=False, scaled=False, eps=0.0)
        >>> stream = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 4.0]]])
        >>> Readout(3, (1, 2), "mean_norm").logits(lens, stream)
        tensor([[0., 3.]])
        """
        vectors = stream.to(lens.dtype)
        read = vectors[:, self._selection]
        if self.pooling == "pool":
            return lens.pooled(read)
        if self.pooling == "token":
            return lens.logits(read[:, 0])
        if self.pooling == "distilled":
            return (lens.logits(read[:, 0]) + _given(second).logits(vectors[:, 1])) / 2
        if self.norm_first:
            return lens.raw((read / lens.sigma(read).unsqueeze(-1)).mean(dim=1)) + lens.offset
        return lens.logits(read.mean(dim=1))

    def share(
        self, raw: Callable[[ClassLens], Tensor], lens: ClassLens, stream: Tensor, second: ClassLens | None = None
    ) -> Tensor:
        """What a part of the last residual stream adds to the answer's logits.

        Parameters
        ----------
        raw : callable
            Raw readings ``[..., B, T]`` of the part, through a lens.
        lens, second : ClassLens
            As in `logits`.
        stream : Tensor [B, T, D]
            The whole last residual stream, whose scale the part is read at.

        Returns
        -------
        Tensor [..., B]
            Shares of parts that sum to the stream sum to the answer's logits, but for `offset`.
        """
        read = stream[:, self._selection]
        if self.pooling == "mean_norm":
            return raw(lens)[..., self._selection].mean(dim=-1) / lens.sigma(read.mean(dim=1))
        scaled = raw(lens)[..., self._selection] / lens.sigma(read)
        if self.norm_first:
            return scaled.mean(dim=-1)
        if self.pooling == "token":
            return scaled[..., 0]
        second = _given(second)
        return (scaled[..., 0] + raw(second)[..., 1] / second.sigma(stream[:, 1])) / 2

    def slopes(
        self, lens: ClassLens, stream: Tensor, second: ClassLens | None = None
    ) -> list[tuple[ClassLens, Tensor]]:
        """How the answer reads the last residual stream ``[B, T, D]``, the norm's scale held at its value.

        Returns
        -------
        list of (ClassLens, Tensor [B, T])
            Lenses and weights of tokens: the answer is the sum over both of ``weight * lens.raw(token)``, and `offset`.
        """
        weights = self.weights.to(stream).expand(stream.shape[:2])
        if self.pooling == "mean_norm":
            return [(lens, weights / lens.sigma(stream[:, self._selection].mean(dim=1)).unsqueeze(1))]
        slopes = [(lens, weights / lens.sigma(stream))]
        if self.pooling == "distilled":
            second = _given(second)
            other = torch.zeros_like(weights)
            other[:, 1] = 0.5
            slopes = [(lens, slopes[0][1] / 2), (second, other / second.sigma(stream))]
        return slopes

    def offset(self, lens: ClassLens, second: ClassLens | None = None) -> Tensor:
        """What is added to the answer's logits whatever the picture, ``[C]``."""
        return (lens.offset + _given(second).offset) / 2 if self.pooling == "distilled" else lens.offset

    def token_weights(self, lens: ClassLens, stream: Tensor) -> Tensor:
        """Weights ``[T]`` whose sum over the tokens of one picture is the vector that the answer is read from.

        Where the norm comes first they hold the norm's scale at every token of the last residual stream ``[T, D]``.
        """
        weights = self.weights.to(stream)
        return weights / lens.sigma(stream).nan_to_num(1.0) if self.norm_first else weights

    def mean(self, values: Tensor) -> Tensor:
        """Mean of ``[B, T, ...]`` over the tokens that are read, ``[B, 1, ...]``."""
        return values[:, self._selection].mean(dim=1, keepdim=True)

    def vectors(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors ``[B, n, D]`` that pass through the lens, and their weights ``[n]``."""
        weights = self.weights[self._selection].to(stream)
        chosen = stream[:, self._selection]
        if self.norm_first or len(self.tokens) == 1:
            return chosen, weights
        return torch.einsum("t,btd->bd", weights, chosen).unsqueeze(1), weights.new_ones(1)

    @property
    def places(self) -> Tensor:
        """Indices of the tokens that are read, on the CPU."""
        return torch.arange(self.n_tokens, device="cpu")[self._selection]

    def rows(self, matrices: Tensor) -> Tensor:
        """Rows of ``[..., T, T]`` averaged over the tokens that are read: ``[..., T]``."""
        weights = self.weights[self._selection].to(matrices)
        return torch.einsum("t,...ts->...s", weights, matrices[..., self._selection, :])


def _given(second: ClassLens | None) -> ClassLens:
    if second is None:
        raise ValueError(
            "the answer of a distilled model is read through two classifiers: give second=, the other lens"
        )
    return second
