"""The trace, or the logits, of a pass with interventions, in one call."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.images import Prepared
from classspace_widgets.interventions.base import Intervention
from classspace_widgets.interventions.engine import intervene
from classspace_widgets.interventions.plan import Plan
from classspace_widgets.interventions.spec import PICTURE, MaskTokens, RemoveTokens
from classspace_widgets.trace import Trace
from classspace_widgets.trace.hooks import evaluating, exclusive, rows_of_this_pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from classspace_widgets.space.space import ClassSpace


def run_with(
    space: ClassSpace,
    images: Any,
    interventions: Intervention | Sequence[Intervention],
    *,
    sources: Mapping[str, Trace] | None = None,
) -> Tensor:
    """The model's own logits ``[B, C]`` with interventions applied.

    Parameters
    ----------
    space : ClassSpace
    images : Any
        As in `ClassSpace.trace`, or a `Trace`, whose pass is then resumed from its embedding.
    interventions : Intervention, or several
    sources : mapping of str to Trace, optional

    Returns
    -------
    Tensor [B, C]

    Raises
    ------
    ValueError
        If an intervention does not fit the model.
    UnsupportedModelError
        If the model's attention cannot be intervened on.

    Examples
    --------
    >>> from classspace_widgets.interventions import KnockOutAttention
    >>> from classspace_widgets.scenes import gallery
    >>> space, scene = ClassSpace.bundled(), gallery()[0]
    >>> run_with(space, scene.picture, [KnockOutAttention("self_only")]).shape
    torch.Size([1, 24])
    """
    sources = _with_picture(space, images, interventions, sources)
    with intervene(space, interventions, sources=sources), pixels_of(space, images) as pixels:
        return space.trace_pixels(Prepared(pixels)).output if not space.adapter.own_output else _logits(space, pixels)


def _logits(space: ClassSpace, pixels: Tensor) -> Tensor:
    with evaluating(space.model), torch.no_grad():
        output: Tensor = space.model(pixels)
    return output


def trace_with(
    space: ClassSpace,
    images: Any,
    interventions: Intervention | Sequence[Intervention],
    *,
    sources: Mapping[str, Trace] | None = None,
    full_grid: bool = True,
    **options: Any,
) -> Trace:
    """A `Trace` of a pass with interventions applied.

    Parameters
    ----------
    space : ClassSpace
    images : Any
        As in `ClassSpace.trace`, or a `Trace`, whose pass is then resumed from its embedding.
    interventions : Intervention, or several
    sources : mapping of str to Trace, optional
    full_grid : bool
        If tokens are removed: True returns a trace of the full patch grid, with NaN at removed tokens (and attention
        weights of 0 to and from them), so that views show gaps; False returns the short sequence, for shares and means
        over tokens.
    **options
        As in `ClassSpace.trace`: ``attention``, ``heads``, ``keys``.

    Returns
    -------
    Trace
        If tokens were removed, ``kept_tokens`` has the indices of the others.

    Raises
    ------
    ValueError
        If an intervention does not fit the model.
    UnsupportedModelError
        If the model's attention cannot be intervened on.

    Examples
    --------
    >>> from classspace_widgets.interventions import RemoveTokens
    >>> from classspace_widgets.scenes import gallery
    >>> space, scene = ClassSpace.bundled(), gallery()[0]
    >>> trace = trace_with(space, scene.picture, [RemoveTokens(box=(0, 0, 12, 6))])  # the left half
    >>> len(trace.kept_tokens), trace.n_tokens
    (73, 145)
    """
    sources = _with_picture(space, images, interventions, sources)
    if isinstance(images, Trace):
        with intervene(space, interventions, sources=sources) as plan, pixels_of(space, images) as pixels:
            trace = space.trace(Prepared(pixels), **options)
        shown = {name: getattr(images, name) for name in ("pictures", "image_names", "photographs")}
        trace = replace(trace, **shown)
    else:
        with intervene(space, interventions, sources=sources) as plan:
            trace = space.trace(images, **options)
    if plan.kept is not None:
        trace = replace(trace, kept_tokens=tuple(plan.kept_numbers))
        if full_grid:
            return _restore_grid(trace, plan)
    return trace


def _with_picture(
    space: ClassSpace,
    images: Any,
    interventions: Intervention | Sequence[Intervention],
    sources: Mapping[str, Trace] | None,
) -> Mapping[str, Trace] | None:
    """The sources, with the picture's own trace where an intervention measures its tokens."""
    several = [interventions] if isinstance(interventions, Intervention) else interventions
    if not any(isinstance(one, (RemoveTokens, MaskTokens)) and one.measures_the_picture for one in several):
        return sources
    picture = images if isinstance(images, Trace) else space.trace(images)
    return {PICTURE: picture, **(sources or {})}


@contextmanager
def pixels_of(space: ClassSpace, images: Any) -> Iterator[Tensor]:
    """Pixels ``[B, 3, height, width]`` to run the model on inside the context.

    For a `Trace` these are blank, and block 1 is given the trace's embedding instead.
    """
    if not isinstance(images, Trace):
        yield space.pixels(images)
        return
    # A clone, because autograd does not accept a trace's tensors, which were made in inference mode.
    embedded = images.increments[0].clone()
    if images.kept_tokens is not None:
        raise ValueError("tokens of this trace were removed; start from the trace of the whole picture")

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rows_of_this_pass(embedded).to(args[0]), *args[1:])

    with exclusive(space.model):
        handle = space.adapter.blocks[0].register_forward_pre_hook(enter, prepend=True)
        try:
            yield space.adapter.blank_pixels(embedded.shape[0], images.grid)
        finally:
            handle.remove()


def _restore_grid(trace: Trace, plan: Plan) -> Trace:
    """A short trace extended to the full sequence, with NaN at removed tokens."""
    assert plan.kept is not None
    kept, count = plan.kept, plan.sizes.tokens

    def extend(short: Tensor) -> Tensor:
        full = short.new_full((short.shape[0], count, *short.shape[2:]), float("nan"))
        full[:, kept] = short
        return full

    def extend_weights(short: Tensor) -> Tensor:
        full = short.new_zeros(*short.shape[:2], count, count)
        full[:, :, kept[:, None], kept] = short
        return full

    return replace(
        trace,
        increments=tuple(extend(increment) for increment in trace.increments),
        head_inputs={block: extend(inputs) for block, inputs in trace.head_inputs.items()},
        mlp_keys={block: extend(keys) for block, keys in trace.mlp_keys.items()},
        attention_weights={block: extend_weights(weights) for block, weights in trace.attention_weights.items()},
    )
