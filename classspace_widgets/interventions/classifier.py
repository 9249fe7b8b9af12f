"""Replacing rows of the class embedding for the passes run inside a context."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from classspace_widgets.models import Adapter, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from classspace_widgets.interventions.spec import ReplaceClassEmbedding
    from classspace_widgets.space.space import ClassSpace


@contextmanager
def replaced_classifier(space: ClassSpace | Adapter, replacements: Sequence[ReplaceClassEmbedding]) -> Iterator[None]:
    """Read the model's output, and a space's lens, through a changed class embedding."""
    adapter = space if isinstance(space, Adapter) else space.adapter
    weight, bias = changed_rows(adapter, replacements)
    if adapter.pooling == "distilled":
        raise UnsupportedModelError("ReplaceClassEmbedding needs a model with one linear classifier")

    def classify(_module: nn.Module, args: tuple[Any, ...], _output: Tensor) -> Tensor:
        return functional.linear(args[0], weight, bias)

    with ExitStack() as stack:
        # A class embedding of the user's is only read through the lens.
        if adapter.own_output:
            stack.callback(adapter.classifier.register_forward_hook(classify).remove)
        if not isinstance(space, Adapter):
            stack.callback(setattr, space, "live_lens", space.live_lens)
            space.live_lens = adapter.make_lens(lambda: (weight, bias))
        yield


def changed_rows(adapter: Adapter, replacements: Sequence[ReplaceClassEmbedding]) -> tuple[Tensor, Tensor | None]:
    """The classifier ``[C, D]``, ``[C]`` with rows replaced, in order."""
    weight = adapter.embedding.detach().clone()
    bias = None if adapter.bias is None else adapter.bias.detach().clone()
    for replacement in replacements:
        rows = list(replacement.classes)
        if replacement.by is not None:
            weight[rows] = weight[list(replacement.by)]
            if bias is not None:
                bias[rows] = bias[list(replacement.by)]
        else:
            vectors = torch.tensor(replacement.vectors, dtype=weight.dtype, device=weight.device)
            if vectors.shape[1] != weight.shape[1]:
                raise ValueError(
                    f"ReplaceClassEmbedding: vectors must have shape [K, {weight.shape[1]}], got {tuple(vectors.shape)}"
                )
            weight[rows] = vectors
    return weight, bias
