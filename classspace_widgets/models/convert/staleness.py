"""Noticing that the original of a conversion was trained further, so that tensors in common and joined ones no longer agree."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


class SameWeights:
    """A hook in front of a conversion's pass that compares its weights with the original's, where those have changed.

    Tensors in common change with the original, joined ones do not: a pass would be neither the old model nor the new one.
    The original is not kept alive for it, and a copy of the conversion has no original.

    Parameters
    ----------
    original : nn.Module, optional
    weights : callable, optional
        Makes weights by timm's names of the original as it is.
    """

    def __init__(
        self, original: nn.Module | None = None, weights: Callable[[nn.Module], dict[str, Tensor]] | None = None
    ) -> None:
        self._original = None if original is None else weakref.ref(original)
        self._weights = weights
        self._seen = None if original is None else _versions(original)

    def __call__(self, conversion: nn.Module, _args: tuple[Any, ...]) -> None:
        """Raise ``RuntimeError`` where the original's weights are no longer the conversion's."""
        original = None if self._original is None else self._original()
        if original is None or self._weights is None or _versions(original) == self._seen:
            return
        own, theirs = conversion.state_dict(), self._weights(original)
        changed = [key for key, value in theirs.items() if not torch.equal(value.to(own[key]), own[key])]
        if changed:
            raise RuntimeError(
                f"the weights of the {type(original).__name__} that this model was converted from have changed since, in part "
                f"for both ({changed[0]} is not the same any more); convert it again: ClassSpace(model). To go on with the "
                "conversion only, let go of the original (del model) or work on copy.deepcopy(space.model)"
            )
        self._seen = _versions(original)

    def __deepcopy__(self, _memo: dict[int, Any]) -> SameWeights:
        return SameWeights()

    def __reduce__(self) -> tuple[type[SameWeights], tuple[()]]:
        return SameWeights, ()


def _versions(model: nn.Module) -> int:
    """A number that grows with every change of a parameter in place."""
    return sum(one._version for one in model.parameters() if not one.is_inference())
