"""`TopK`: the best classes of tokens, by number and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class _Pair(NamedTuple):
    logits: Tensor
    classes: Tensor


class TopK(_Pair):
    """The best classes of tokens: a pair ``(logits, classes)`` that knows the classes' names.

    Made by `Trace.top_k`.

    Attributes
    ----------
    logits : Tensor [B, T, k], float32
        Best first; ``[n, B, T, k]`` for several blocks.
    classes : Tensor [B, T, k], int64
        Class indices.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> ClassSpace.bundled().trace(gallery()[0].picture).top_k(2)
    TopK(float32 [1, 145, 2]; first: fish ..., traffic light ...)
    """

    class_names: tuple[str, ...] = ()

    def named(self, class_names: tuple[str, ...]) -> TopK:
        """Itself, with the names of all C classes."""
        self.class_names = class_names
        return self

    @property
    def names(self) -> np.ndarray[Any, Any]:
        """Names of the classes, ``[B, T, k]`` of str."""
        named: np.ndarray[Any, Any] = np.asarray(self.class_names, dtype=object)[self.classes.cpu().numpy()]
        return named

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.classes.shape))
        if not self.classes.numel():
            return f"TopK(float32 [{shape}])"
        first = (0,) * (self.classes.ndim - 1)
        pairs = zip(self.classes[first].tolist()[:5], self.logits[first].tolist(), strict=False)
        best = ", ".join(f"{self.class_names[c]} {logit:.1f}" for c, logit in pairs)
        return f"TopK(float32 [{shape}]; first: {best})"
