"""`Recipe`: all that is needed to make timm's equal of a model from another library, and to compare the two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How a model of another library becomes timm's equal one.

    Made by the module of a library's family; `assemble.assembled` follows it.

    Attributes
    ----------
    architecture : callable
        timm's class, or a function that calls it: ``architecture(**options)`` is the model without its weights.
    options : dict
        Sizes and switches, read from the original's weights and configuration.
    weights : dict of str to Tensor
        The original's weights by timm's names; those that are the same tensors share their memory with the original.
    run : callable
        Pixels ``[1, channels, height, width]`` to the answer that the timm model must give: class logits, or pooled
        features of a model without a classifier.  None where there are only weights, and nothing to compare with.
    blocks : sequence of nn.Module
        The original's blocks, in order; each one's output (or the first of its outputs) is the residual stream.
    config : dict
        What timm calls ``pretrained_cfg``: names of classes and preprocessing, as far as the original knows them.
    projection : bool
        Whether the last linear map goes to a space that is shared with text, and so does not tell classes apart.
    """

    architecture: Callable[..., nn.Module]
    options: dict[str, Any]
    weights: dict[str, Tensor]
    run: Callable[[Tensor], Tensor] | None = None
    blocks: Sequence[nn.Module] = ()
    config: dict[str, Any] = field(default_factory=dict)
    projection: bool = False
