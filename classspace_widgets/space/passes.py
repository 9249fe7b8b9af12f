"""Forward passes of a space: run, checked, in chunks where memory is short, and made into traces."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, TypeVar

import torch

from classspace_widgets.lens.lens import full_precision
from classspace_widgets.lookup import at_least
from classspace_widgets.models.device import halved
from classspace_widgets.progress import over_blocks
from classspace_widgets.space.verify import check_tokens, tensor_output
from classspace_widgets.trace import Trace
from classspace_widgets.trace.hooks import evaluating, exclusive, part_of_batch, recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from classspace_widgets.images.inputs import Shown
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace.hooks import Choice, Recording

T = TypeVar("T")


class Keep(TypedDict):
    """What a pass keeps beside the increments: see `ClassSpace.trace`."""

    attention: Choice
    heads: Choice
    keys: Choice


def in_chunks(space: ClassSpace, pixels: Tensor, run: Callable[[Tensor], T], chunk: int | None = None) -> list[T]:
    """Run something over a batch in chunks of images; where GPU memory runs out, again in smaller ones, with a warning."""
    size = len(pixels) if chunk is None else min(at_least(chunk, "chunk (images per pass)", 1), len(pixels))
    done: list[T] = []
    start = 0
    with exclusive(space.model), over_blocks(space.adapter.blocks, len(pixels), "forward pass"):
        while start < len(pixels):
            part = slice(start, min(start + size, len(pixels)))
            try:
                with part_of_batch(part, len(pixels)):
                    done.append(run(pixels[part]))
                start += size
            except RuntimeError as error:
                size = halved(min(size, len(pixels) - start), error, space.device)
    return done


def run_pass(
    space: ClassSpace, pixels: Tensor, *, attention: Choice = False, heads: Choice = False, keys: Choice = False
) -> tuple[Recording, Tensor]:
    """One pass: what was recorded, and the model's output ``[B, C]`` (``[B, 0]`` where that is no reading of classes)."""
    adapter = space.adapter
    with (
        evaluating(space.model),
        torch.no_grad(),
        recording(adapter, attention=attention, heads=heads, keys=keys) as record,
    ):
        output = space.model(pixels)
    if record.last is not None:
        check_tokens(record, record.last, adapter.points, space.name)
    if not adapter.own_output:
        return record, pixels.new_zeros(len(pixels), 0)
    return record, tensor_output(output, adapter, space.name)


def as_trace(
    space: ClassSpace,
    record: Recording,
    output: Tensor,
    pixels: Tensor,
    *,
    shown: Shown | None = None,
) -> Trace:
    """What a pass over pixels recorded, with all that its readings need of the model."""
    adapter = space.adapter
    trace = Trace(
        increments=tuple(record),
        output=output,
        lens=space.lens,
        prefix=adapter.prefix,
        grid=adapter.grid_of(*pixels.shape[2:]),
        pooling=adapter.pooling,
        layout=adapter.layout,
        class_names=space.class_names,
        pictures=shown and shown.pictures,
        image_names=shown.names if shown else (),
        photographs=shown.photographs if shown else (),
        model_name=space.name,
        heads=adapter.heads,
        attention_weights=record.attention_weights,
        head_inputs=record.head_inputs,
        attention_inputs=record.attention_inputs,
        mlp_keys=record.mlp_keys,
        pool_prefix=adapter.pool_prefix,
        second_lens=space.second_lens,
        space=space,
    )
    if adapter.own_output:
        return trace
    with torch.no_grad():
        return replace(trace, output=trace.readout())


def trace_noise(space: ClassSpace) -> tuple[Trace, Tensor]:
    """The trace of one picture of noise, and the output ``[1, T, D]`` of its last block: what checks are made on."""
    generator = torch.Generator("cpu").manual_seed(0)
    shape = (1, len(space.preprocessing.mean), *space.preprocessing.size)
    pixels = torch.randn(shape, generator=generator, device="cpu").to(space.device, space.dtype)
    with full_precision(pixels):
        record, output = run_pass(space, pixels)
        assert record.last is not None
        return as_trace(space, record, output, pixels), record.last
