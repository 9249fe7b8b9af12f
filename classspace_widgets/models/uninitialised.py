"""Building a model whose weights will be replaced, without drawing random ones first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable

# What torch's and timm's initialisations spend their time in; `erfinv_` turns uniform numbers into normal ones. Those of
# `torch.nn.init` reach the mode as a whole, and take the tensor by name.
_DRAWS = frozenset(
    {torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.erfinv_}
    | {nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_}
)


class without_random_weights(TorchFunctionMode):
    """Inside the context, weights keep whatever their memory held; everything that is computed, such as tables, is made.

    Drawing random weights takes more than half of the time in which a model is built. Only for models of which every
    weight is loaded afterwards.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Leave a tensor as it is where it would be filled with random numbers."""
        given = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
