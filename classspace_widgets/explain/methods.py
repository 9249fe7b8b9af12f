"""The importance methods, each a function of a model, a batch of pixels and the classes of every image.

Methods with importance by block return ``[B, K, L, H, T]`` or ``[B, K, L, T]``, the others the map ``[B, K, T]``.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.explain.closed_form import block_importance, checked_parts
from classspace_widgets.explain.reading import differentiable_logits, linear_readout, reading_gradient
from classspace_widgets.explain.weights import explicit_attention, read_rows
from classspace_widgets.images import Prepared
from classspace_widgets.lens.lens import full_precision
from classspace_widgets.metrics.flow import flow_of
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.models.sublayers import on_added
from classspace_widgets.trace.hooks import evaluating, hook

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from classspace_widgets.lens import Readout
    from classspace_widgets.space.space import ClassSpace


@dataclass
class Request:
    """The input of a method."""

    space: ClassSpace
    pixels: Tensor
    classes: Callable[[Tensor], Tensor]
    readout: Readout
    loss: str
    heads: bool
    block: int = 0


def gradient(request: Request) -> tuple[Tensor, Tensor]:
    """The paper's gradient in closed form, in one forward pass with fused attention; see `closed_form`."""
    space, adapter = request.space, request.space.adapter
    parts = [checked_parts(block) for block in adapter.blocks]
    inputs: dict[int, Tensor] = {}
    outputs: list[tuple[Tensor, Tensor]] = []

    def enter(block: int) -> Callable[..., None]:
        def keep(_module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs[block] = args[0]

        return keep

    def added(block: int) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
            vectors, _ = request.readout.vectors(output)
            outputs.append((vectors, inputs.pop(block)))

        return keep

    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        for number, block in enumerate(adapter.blocks):
            hook(stack, parts[number].module.register_forward_pre_hook(enter(number)))
            for handle in on_added(block, "attention", added(number)):
                hook(stack, handle)
        stack.enter_context(torch.inference_mode())
        output = class_output(space, request.pixels)
        stack.enter_context(full_precision(output))
        classes = request.classes(output)
        _, weights = request.readout.vectors(outputs[0][1])
        shares = [
            block_importance(
                part,
                reading_gradient(space.lens, vectors, weights, classes, request.loss),
                entered,
                heads=request.heads,
            )
            for part, (vectors, entered) in zip(parts, outputs, strict=True)
        ]
        return torch.stack(shares, dim=2), classes


def gradient_by_autograd(request: Request) -> tuple[Tensor, Tensor]:
    """The same gradient by differentiating every block's reading: for attention without a closed form."""
    space, adapter = request.space, request.space.adapter
    if not adapter.points.sequential:
        raise UnsupportedModelError("blocks that add attention and MLP together have no attention output to read")
    added: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        for block in adapter.blocks:
            for handle in on_added(block, "attention", lambda _m, _a, output: added.append(output)):
                hook(stack, handle)
        weights = stack.enter_context(explicit_attention(adapter, leaves=True))
        with torch.enable_grad():
            output = class_output(space, request.pixels)
            classes = request.classes(output)
            # With gradient checkpointing, the backward pass runs blocks, and so their hooks, again: hence the copy.
            shares = [
                _differentiated(request, classes, output_of_block, weights[number])
                for number, output_of_block in enumerate(tuple(added), start=1)
            ]
    stacked = torch.stack(shares, dim=2)
    return stacked if request.heads else stacked.sum(dim=3), classes


def _gradients(request: Request, total: Tensor, wanted: list[Tensor], *, retain_graph: bool) -> tuple[Tensor, ...]:
    """Gradients of a scalar; raises `UnsupportedModelError` if autograd did not record the pass."""
    try:
        return torch.autograd.grad(total, wanted, retain_graph=retain_graph)
    except RuntimeError as error:
        if not any(words in str(error) for words in ("does not require grad", "not have been used in the graph")):
            raise
        raise UnsupportedModelError(
            f"{request.space.name} runs its blocks without autograd (reentrant gradient checkpointing, or "
            "torch.no_grad), so gradients do not exist; switch that off in the model, or pass use_reentrant=False to "
            "torch.utils.checkpoint"
        ) from error


def _differentiated(request: Request, classes: Tensor, added: Tensor, weights: Tensor) -> Tensor:
    """Importance ``[B, K, H, T]`` of one block by autograd."""
    lens = request.space.lens
    vectors, share = request.readout.vectors(added)
    logits = differentiable_logits(lens, vectors)
    if request.loss == "cross_entropy":
        logits = logits.log_softmax(dim=-1)
    elif request.loss == "paper":
        logits = logits.softmax(dim=-1).log_softmax(dim=-1)
    readings = torch.einsum("n,bnc->bc", share.to(logits), logits)
    found = []
    for k in range(classes.shape[1]):
        total = readings.gather(1, classes[:, k : k + 1]).sum()
        (slope,) = _gradients(request, total, [weights], retain_graph=True)
        # Only the rows of the output token have a gradient.
        found.append(slope.sum(dim=2))
    return torch.stack(found, dim=1)


def direct(request: Request) -> tuple[Tensor, Tensor]:
    """Direct contribution by source token: ``A_h[t, s] (W_O,h V_h[s]) E_c / sigma(x_L[t])``.

    The contribution that attention moves from every source token directly to the output token; exactly additive: with the
    output projections' biases, the MLPs and the embedding the sum is the logit.
    """
    space, adapter, readout = request.space, request.space.adapter, request.readout
    parts = [checked_parts(block) for block in adapter.blocks]
    rows: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    last: list[Tensor] = []

    def take(block: int, weights: Tensor, value: Tensor) -> None:
        rows[block], values[block] = weights, value

    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        hook(stack, adapter.blocks[-1].register_forward_hook(lambda _m, _a, output: last.append(output)))
        stack.enter_context(read_rows(adapter, take, readout.places))
        stack.enter_context(torch.inference_mode())
        output = class_output(space, request.pixels)
        stack.enter_context(full_precision(output))
        classes = request.classes(output)
        vectors, weights = readout.vectors(last[0].to(space.lens.folded.dtype))
        scale = weights / space.lens.sigma(vectors)
        share = readout.weights.to(scale)[readout.places]
        if not readout.norm_first:
            scale = scale * share
        shares = []
        for number, part in enumerate(parts, start=1):
            projection, _ = part.out_projection()
            read = space.lens.folded[classes] @ projection.to(space.lens.folded.dtype)
            read = read.view(*read.shape[:2], part.heads, -1)
            readings = torch.einsum("bkhe,bhse->bkhs", read, values[number].to(read))
            reach = torch.einsum("bn,bhns->bhs", scale.expand(len(readings), -1), rows[number].to(read))
            shares.append(readings * reach.unsqueeze(1))
        stacked = torch.stack(shares, dim=2)
        return stacked if request.heads else stacked.sum(dim=3), classes


def flow(request: Request) -> tuple[Tensor, Tensor]:
    """What the tokens of the residual stream after a block bring to the logit; see `metrics.flow`."""
    trace = request.space.trace_pixels(Prepared(request.pixels))
    classes = request.classes(trace.output)
    found = flow_of(trace, classes, [(request.block, "residual")])
    return found.values[0].transpose(1, 2), classes


def rollout(request: Request) -> tuple[Tensor, Tensor]:
    """Attention rollout (Abnar & Zuidema 2020): the product of ``(mean_h A_h + I) / 2`` over blocks; the same for all classes."""
    space, adapter = request.space, request.space.adapter
    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        stack.enter_context(torch.inference_mode())
        weights = stack.enter_context(explicit_attention(adapter))
        classes = request.classes(class_output(space, request.pixels))
        total: Tensor | None = None
        for block in adapter.points.blocks:
            mean = weights[block].float().mean(dim=1)
            step = (mean + torch.eye(mean.shape[-1], device=mean.device, dtype=mean.dtype)) / 2
            step = step / step.sum(dim=-1, keepdim=True)
            total = step if total is None else step @ total
        assert total is not None
        return request.readout.rows(total).unsqueeze(1).expand(-1, classes.shape[1], -1).clone(), classes


def chefer(request: Request) -> tuple[Tensor, Tensor]:
    """Generic attention relevance (Chefer, Gur & Wolf 2021): ``R += mean_h max(A * dy_c/dA, 0) R``, block by block.

    All blocks' gradients come from one backward call per class.
    """
    space, adapter = request.space, request.space.adapter
    numbers = adapter.points.blocks
    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        weights = stack.enter_context(explicit_attention(adapter))
        with torch.enable_grad():
            output = class_output(space, request.pixels)
            classes = request.classes(output)
            maps = []
            for k in range(classes.shape[1]):
                total = output.gather(1, classes[:, k : k + 1]).sum()
                slopes = _gradients(
                    request, total, [weights[n] for n in numbers], retain_graph=k + 1 < classes.shape[1]
                )
                with torch.no_grad():
                    maps.append(request.readout.rows(_relevance([weights[n] for n in numbers], list(slopes))))
    return torch.stack(maps, dim=1), classes


def _relevance(weights: list[Tensor], slopes: list[Tensor]) -> Tensor:
    """Relevance ``[B, T, T]`` from attention weights and their gradients ``[B, H, T, T]``."""
    tokens = weights[0].shape[-1]
    relevance = torch.eye(tokens, device=weights[0].device).expand(len(weights[0]), -1, -1)
    for weight, slope in zip(weights, slopes, strict=True):
        step = (weight.float() * slope.float()).clamp_min(0).mean(dim=1)
        relevance = relevance + step @ relevance
    return relevance


def attention(request: Request) -> tuple[Tensor, Tensor]:
    """Raw attention of the last block at the output token, averaged over heads; the same for all classes."""
    space, adapter = request.space, request.space.adapter
    kept: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        stack.enter_context(torch.inference_mode())
        places = request.readout.places
        stack.enter_context(read_rows(adapter, lambda block, rows, _v: kept.update({0: rows}), places))
        classes = request.classes(class_output(space, request.pixels))
        share = request.readout.weights.to(kept[0])[places]
        last = torch.einsum("n,bhns->bs", share, kept[0]) / kept[0].shape[1]
        return last.float().unsqueeze(1).expand(-1, classes.shape[1], -1).clone(), classes


def class_output(space: ClassSpace, pixels: Tensor) -> Tensor:
    """The class logits ``[B, C]`` of a pass; through a foreign class embedding, the pooled lens of its last block."""
    adapter = space.adapter
    if adapter.own_output:
        output: Tensor = space.model(pixels)
        return output
    last: list[Tensor] = []
    with ExitStack() as stack:
        hook(stack, adapter.blocks[-1].register_forward_hook(lambda _m, _a, out: last.append(out)))
        space.model(pixels)
    return lens_output(space, last[0])


def lens_output(space: ClassSpace, stream: Tensor) -> Tensor:
    """Pooled lens ``[B, C]`` of a last residual stream ``[B, T, D]``."""
    vectors, weights = linear_readout(space.adapter, stream.shape[1]).vectors(stream)
    return torch.einsum("n,bnc->bc", weights.to(space.lens.folded), differentiable_logits(space.lens, vectors))


METHODS: dict[str, tuple[Callable[[Request], tuple[Tensor, Tensor]], bool]] = {
    "gradient": (gradient, True),
    "direct": (direct, True),
    "flow": (flow, True),
    "chefer": (chefer, False),
    "rollout": (rollout, False),
    "attention": (attention, False),
}
"""Methods by name, with True for those whose maps are signed."""
