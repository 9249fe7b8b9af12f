"""Spaces whose classes are words, by the text tower of a CLIP or SigLIP: made, and extended by what a person types."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens.lens import full_precision
from classspace_widgets.models.convert.assemble import blocks_input_size
from classspace_widgets.models.convert.pretrained import load_pretrained
from classspace_widgets.models.convert.take import take
from classspace_widgets.models.convert.wrapped import in_evaluation
from classspace_widgets.models.head import has_pool, linear_head
from classspace_widgets.models.words import checked_words, words_of
from classspace_widgets.space.like import space_like
from classspace_widgets.space.space import ClassSpace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from torch import nn

    from classspace_widgets.trace import Trace


def space_in_words(
    model: nn.Module | str | PathLike[str],
    names: Sequence[str],
    *,
    tokenizer: Any = None,
    templates: Sequence[str] = ("{}",),
    **options: Any,
) -> ClassSpace:
    """A space whose classes are words: see `ClassSpace.from_words`."""
    original = model if isinstance(model, torch.nn.Module) else load_pretrained(model)
    names = checked_words(names)
    words = words_of(original, tokenizer, templates)
    taken = take(original, image_size=options.get("image_size"))
    projection = linear_head(getattr(taken.model, "head", None)) if taken.projection else None
    words = replace(words, projection=projection, scale=words.scale / _length_of_features(taken.model))
    embedding, bias = words.embedding(names)
    made = ClassSpace(
        taken.model,
        class_names=names,
        class_embedding=embedding,
        class_bias=bias,
        class_norm="pool" if has_pool(taken.model) else "final",
        **options,
    )
    made.words, made.origin = words, taken.origin
    return made


def _length_of_features(model: nn.Module) -> float:
    """The length of a model's features of one picture of noise: cosines are readings divided by about this."""
    parameter = next(model.parameters())
    generator = torch.Generator("cpu").manual_seed(0)
    pixels = torch.randn((1, *blocks_input_size(model)), generator=generator, device="cpu").to(parameter)
    with in_evaluation(model), full_precision(pixels):
        return max(float(model(pixels).float().norm()), 1e-12)


def with_words(space: ClassSpace, names: Sequence[str]) -> ClassSpace:
    """A space with more classes in words: see `ClassSpace.with_words`."""
    if space.words is None:
        raise ValueError(
            f"{space.name} has no text tower to read words with; make the space of a CLIP or SigLIP that has one: "
            "ClassSpace.from_words(model, names)"
        )
    new = tuple(name for name in checked_words(names) if name not in space.class_names)
    if not new:
        return space
    embedding, bias = (part.to(space.device) for part in space.words.embedding(new))
    old = space.adapter.embedding
    old_bias = space.adapter.bias
    assert old_bias is not None
    return space_like(
        space,
        space.model,
        class_names=(*space.class_names, *new),
        class_embedding=torch.cat([old, embedding.to(old)]),
        class_bias=torch.cat([old_bias, bias.to(old_bias)]),
    )


def reread(space: ClassSpace, trace: Trace) -> Trace:
    """A pass read with the classes of another space of its model: see `ClassSpace.reread`."""
    adapter = space.adapter
    if trace.require_space().adapter.model is not adapter.model:
        raise ValueError(
            f"the trace is of another model than {space.name}, and its vectors mean nothing there; trace the picture again: "
            "space.trace(image)"
        )
    read = replace(
        trace,
        lens=space.lens,
        second_lens=space.second_lens,
        pooling=adapter.pooling,
        pool_prefix=adapter.pool_prefix,
        class_names=space.class_names,
        model_name=space.name,
        space=space,
    )
    with torch.no_grad():
        return replace(read, output=read.readout())
