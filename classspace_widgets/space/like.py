"""Spaces like another one: of another model of the same architecture, on another device, with fresh weights.

`space_like` is the one place that knows what of a space goes along.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from classspace_widgets.models.build import fresh_copy
from classspace_widgets.models.placing import copied
from classspace_widgets.space.passes import trace_noise
from classspace_widgets.space.space import ClassSpace
from classspace_widgets.space.verify import verify

if TYPE_CHECKING:
    import torch
    from torch import nn

MIN_CHANGE = 0.001
"""Relative change of the stream, from the embedding to the last block, below which a twin's readings are its embedding's:
with LayerScale as timm starts it, 1e-5, a twin's stream changes by about as much."""


def space_like(
    space: ClassSpace, model: nn.Module, *, name: str = "", device: str | torch.device = "auto", **classes: Any
) -> ClassSpace:
    """Another model of the same architecture, read and given pictures in the same way; unchecked.

    Parameters
    ----------
    space : ClassSpace
        Whose class names, class embedding (where it is foreign) and preprocessing are taken.
    model : nn.Module
    name : str
        By default the space's own.
    device : str
    **classes
        ``class_names``, ``class_embedding`` and ``class_bias``, where they are not the space's own.

    Returns
    -------
    ClassSpace
    """
    adapter, own = space.adapter, space.adapter.own_output
    kept: dict[str, Any] = {
        "class_names": space.class_names,
        "class_embedding": None if own else adapter.embedding,
        "class_bias": None if own else adapter.bias,
    }
    made = ClassSpace(
        model,
        device=device,
        class_norm="pool" if not adapter.linear else "final" if own or adapter.norm is not None else "none",
        name=name or space.name,
        check=False,
        **(kept | classes),
    )
    made.preprocessing, made.origin, made.words = space.preprocessing, space.origin, space.words
    made.backbone = space.backbone
    return made


def on_device(space: ClassSpace, device: str) -> ClassSpace:
    """The same space on another device; the caller's model stays where it is."""
    return space_like(space, copied(space.model), device=device)


def random_twin(space: ClassSpace, seed: int) -> ClassSpace:
    """The same architecture with fresh weights: see `ClassSpace.random_twin`."""
    twin = space_like(space, fresh_copy(space.model, seed), name=f"{space.name} (random weights, seed {seed})")
    trace, last = trace_noise(twin)
    twin.words = None  # its projection is random: words would not be those of the other classes
    twin.identities = verify(trace, last, own_output=twin.adapter.own_output)
    change = float((last - trace.increments[0]).norm() / trace.increments[0].norm().clamp_min(1e-12))
    if not change >= MIN_CHANGE:
        warnings.warn(
            f"{twin.name}: its residual stream moves by {change:.1g} of itself from the embedding to the last block, so it "
            "is no control: its readings at every block are its embedding's. The gains of its residual branches "
            "(LayerScale's gamma), which are the model's, are near 0, as before training",
            stacklevel=3,
        )
    return twin
