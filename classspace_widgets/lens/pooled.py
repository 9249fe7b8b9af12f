"""`PooledLens`: where a model pools all of its tokens by a module of its own, a token is read as if it were the only one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens.lens import ClassLens, full_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

LINEAR = ("folded", "centred", "scaled", "eps")
"""What a linear lens has and this one has not."""

ROWS = 8192
"""Tokens that are pooled at a time."""


class PooledLens(ClassLens):
    """Class logits of a vector as the answer that the model would give if it were all there is.

    For models whose head pools all tokens by attention (``global_pool="map"``, SigLIP), or by another module.  Over a
    single token attention pooling is exact: the weight of that token is 1.  The reading is not linear, so it is no sum of
    what heads, tokens and blocks contribute.

    Made by `LiveLens`; a model's own is ``space.lens``.

    Parameters
    ----------
    stages : sequence of nn.Module
        What vectors ``[n, T, D]`` go through on their way to features ``[n, F]``: final norm, pooling, norm behind it.
        They are copied, in full precision.
    embedding : Tensor [C, F]
    bias : Tensor [C] or None
    refusal : callable
        Makes the error for what needs a linear head.

    Attributes
    ----------
    offset : Tensor [C]
        The bias.
    """

    def __init__(
        self, stages: Sequence[nn.Module], embedding: Tensor, bias: Tensor | None, refusal: Callable[[], Exception]
    ) -> None:
        dtype = torch.float64 if embedding.dtype == torch.float64 else torch.float32
        own: dict[str, Any] = {
            "embedding": embedding.detach().to(dtype).clone(),
            "offset": embedding.new_zeros(len(embedding), dtype=dtype)
            if bias is None
            else bias.detach().to(dtype).clone(),
            "_stages": [copy.deepcopy(stage).to(dtype).eval().requires_grad_(False) for stage in stages],
            "_refusal": refusal,
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)  # the class is frozen

    def __repr__(self) -> str:
        return f"PooledLens(classes: {len(self.offset)}, read as if a token were the only one)"

    def __getattr__(self, name: str) -> Any:
        if name in LINEAR:
            raise self._refusal()
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def dtype(self) -> torch.dtype:
        """Precision of readings."""
        return self.offset.dtype

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that readings go through."""
        return self.embedding, self.offset, *(one for stage in self._stages for one in stage.parameters())

    def logits(self, vectors: Tensor, classes: Tensor | None = None) -> Tensor:
        """Class logits of vectors ``[..., D] -> [..., C]`` (or only ``classes`` ``[K]``), each read as if it were the only one."""
        rows = vectors.reshape(-1, 1, vectors.shape[-1])
        read = [self._through(some, classes) for some in torch.split(rows, ROWS)]
        return torch.cat(read).view(*vectors.shape[:-1], -1)

    def pooled(self, vectors: Tensor) -> Tensor:
        """Class logits ``[B, C]`` of tokens ``[B, T, D]`` that are pooled together: the model's own answer."""
        return self._through(vectors, None)

    def _through(self, vectors: Tensor, classes: Tensor | None) -> Tensor:
        embedding, bias = (
            (self.embedding, self.offset) if classes is None else (self.embedding[classes], self.offset[classes])
        )
        with full_precision(embedding):
            features = vectors.to(self.dtype)
            for stage in self._stages:
                features = stage(features)
            logits: Tensor = torch.nn.functional.linear(features, embedding, bias)
        return logits
