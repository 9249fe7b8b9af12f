"""Many passes on subsets of tokens, without computing anything for the tokens that are absent.

If a model has positions only in the embedding, sequences of any lengths are packed one after another into one long sequence:
norms and MLPs act on each token and work on large matrices, and only the scaled dot product is split into the single
sequences. Other models (rotary or relative positions) run sequences of equal length as one batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.interventions.attention import attention_module
from classspace_widgets.interventions.engine import has_position_bias
from classspace_widgets.interventions.resume import plain_product
from classspace_widgets.lens.readout import pools
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.progress import progress_bar
from classspace_widgets.trace.hooks import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from classspace_widgets.interventions.attention import Drop
    from classspace_widgets.interventions.resume import Resumable

TOKENS_AT_ONCE = 4_000
"""Tokens packed together, or in one batch: on CPUs large enough for efficient products, small enough for the caches."""


def run_subsets(run: Resumable, images: Sequence[int], subsets: Sequence[Tensor]) -> Tensor:
    """Logits of passes on subsets of tokens, removed after the position embedding.

    Parameters
    ----------
    run : Resumable
        A pass over B images.
    images : sequence of int [V]
        The image of each pass.
    subsets : sequence of V Tensor [T'], int64
        The tokens of the full sequence that are present, prefix tokens first.

    Returns
    -------
    Tensor [V, C]
    """
    if len(images) != len(subsets) or not subsets:
        raise ValueError(f"expected as many images as subsets, and at least one, got {len(images)} and {len(subsets)}")
    output = run.output.new_zeros(len(subsets), run.output.shape[1])
    packable = _packable(run)
    order = sorted(range(len(subsets)), key=lambda v: len(subsets[v]))
    lengths = [len(s) for s in subsets]
    with (
        evaluating(run.adapter.model),
        torch.inference_mode(),
        progress_bar(sum(lengths), "passes without tokens", "token") as bar,
    ):
        for chosen in _chunks(order, lengths, mixed=packable):
            picked = [subsets[v] for v in chosen]
            at = [images[v] for v in chosen]
            logits = _packed(run, at, picked) if packable and len(chosen) > 1 else _as_batch(run, at, picked)
            output[torch.tensor(chosen, device=output.device)] = logits
            bar.update(sum(lengths[v] for v in chosen))
    return output.clone()


def _chunks(order: Sequence[int], lengths: Sequence[int], *, mixed: bool) -> Iterator[list[int]]:
    """Split passes, sorted by length, into batches of a bounded number of tokens."""
    chunk: list[int] = []
    total = 0
    for v in order:
        other = not mixed and chunk and lengths[chunk[0]] != lengths[v]
        if chunk and (other or total + lengths[v] > TOKENS_AT_ONCE):
            yield chunk
            chunk, total = [], 0
        chunk.append(v)
        total += lengths[v]
    yield chunk


def _packable(run: Resumable) -> bool:
    """Whether blocks process tokens independently of their positions, except in the scaled dot product."""
    try:
        for block in run.adapter.blocks:
            attention_module(block)
    except UnsupportedModelError:
        return False
    no_arguments = all(value is None or value is False for kwargs in run.arguments for value in kwargs.values())
    return no_arguments and not any(has_position_bias(block) for block in run.adapter.blocks)


def _as_batch(run: Resumable, images: Sequence[int], subsets: Sequence[Tensor]) -> Tensor:
    """Passes of equal length as one batch."""
    kept = torch.stack(list(subsets)).to(run.output.device)
    at = torch.tensor(images, device=kept.device)
    return run.run(run.inputs[0][at[:, None], kept], 1, kept=kept)


def _packed(run: Resumable, images: Sequence[int], subsets: Sequence[Tensor]) -> Tensor:
    """Passes of any lengths, sorted by length, packed into one sequence."""
    device = run.output.device
    lengths = [len(s) for s in subsets]
    tokens = torch.cat(list(subsets)).to(device)
    # Repeated in Python: how many there are depends on values, for which a GPU would be waited for.
    at = torch.tensor([one for one, size in zip(images, lengths, strict=True) for _ in range(size)], device=device)
    groups = _Groups(lengths)
    last = len(run.adapter.blocks)
    x = run.run_blocks(run.inputs[0][at, tokens].unsqueeze(0), dict.fromkeys(range(1, last + 1), groups))[0]
    if not pools(run.adapter.pooling):
        # The output only uses prefix tokens: the others need neither norm nor classifier.
        starts = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
        prefix = torch.arange(len(run.adapter.prefix), device=device)
        return run.finish(x[starts[:, None] + prefix])
    return torch.cat([run.finish(x[begin : begin + n * size].view(n, size, -1)) for begin, n, size in groups.spans])


class _Groups:
    """A product over packed sequences; those of equal length share one call."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.spans: list[tuple[int, int, int]] = []
        begin = 0
        for size in dict.fromkeys(lengths):
            count = lengths.count(size)
            self.spans.append((begin, count, size))
            begin += count * size

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        result = value.new_empty(*query.shape[:-1], value.shape[-1])
        for begin, count, size in self.spans:
            span = slice(begin, begin + count * size)
            parts = [t[0, :, span].reshape(t.shape[1], count, size, -1).transpose(0, 1) for t in (query, key, value)]
            heads = plain_product(parts[0], parts[1], parts[2], bias, scale, drop)
            result[0, :, span] = heads.transpose(0, 1).flatten(1, 2)
        return result
