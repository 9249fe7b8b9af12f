"""The identities that readings rest on, checked on a real pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.models.refusals import REMEDY, UnsupportedModelError
from classspace_widgets.points import block_name

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.models import Adapter
    from classspace_widgets.points import Points
    from classspace_widgets.trace import Trace


MAX_ERROR = 0.1
"""The largest relative error that rounding may explain, in half precision too (a tenth of it was measured)."""


def verify(trace: Trace, last: Tensor, *, own_output: bool = True) -> dict[str, float]:
    """Check that increments sum to the residual stream, and that the pooled lens is the model's own output.

    Parameters
    ----------
    trace : Trace
    last : Tensor [B, T, D]
        The output of the model's last block.
    own_output : bool
        Whether the model's output is a class reading; otherwise only the first identity is checked.

    Returns
    -------
    dict
        Relative errors, ``"residual"`` and ``"output"``.

    Raises
    ------
    UnsupportedModelError
        Where an identity does not hold.

    Examples
    --------
    >>> space = ClassSpace.from_timm("test_vit", pretrained=False)
    >>> sorted(space.check())  # runs it on a noise image
    ['output', 'residual']
    """
    name = trace.model_name or "this model"
    _check_finite(trace, name)
    precision = max(torch.finfo(last.dtype).eps, torch.finfo(trace.lens.dtype).eps)
    total = trace.stream("residual", trace.n_blocks).to(trace.lens.dtype)
    if not bool(torch.isfinite(last).all()):
        raise UnsupportedModelError(
            f"{name}: its residual stream becomes NaN or infinite on a noise image in {last.dtype}, though its weights are "
            "finite; use dtype=torch.float32 (bfloat16 does not overflow where float16 does)"
        )
    errors = {"residual": float((total - last.to(total.dtype)).abs().max() / last.abs().max().clamp_min(1e-12))}
    if not errors["residual"] <= min(8 * (len(trace.increments) + 1) * precision, MAX_ERROR):
        raise UnsupportedModelError(
            f"{name}: what its blocks add does not sum to its residual stream (relative error "
            f"{errors['residual']:.1e}), so something else writes into the stream; {REMEDY}"
        )
    if own_output:
        if trace.output.ndim != 2 or trace.output.shape[1] != trace.n_classes:
            raise UnsupportedModelError(
                f"{name}: expected an output of shape [B, C]=[{last.shape[0]}, {trace.n_classes}], "
                f"got {tuple(trace.output.shape)}; {REMEDY}"
            )
        output = trace.output.to(total.dtype)
        spread = output.abs().max().clamp_min(1e-12)
        errors["output"] = float((trace.readout() - output).abs().max() / spread)
        if not errors["output"] <= min(2000 * precision, MAX_ERROR):
            raise UnsupportedModelError(
                f"{name}: reading its last residual stream through its own norm and classifier does not give its "
                f"output (relative error {errors['output']:.1e}), so something else sits between them; {REMEDY}"
            )
    return errors


def tensor_output(output: Any, adapter: Adapter, name: str) -> Tensor:
    """The model's output, if it is a tensor; else `UnsupportedModelError` says where in it the logits are."""
    if isinstance(output, torch.Tensor):
        return output
    name = name or type(adapter.model).__name__
    count = adapter.embedding.shape[0]
    places: list[tuple[str, Any]] = []
    if isinstance(output, Mapping):
        places = [(f"output[{key!r}]", value) for key, value in output.items()]
    elif isinstance(output, (tuple, list)):
        places = [(f"output[{i}]", value) for i, value in enumerate(output)]
    elif hasattr(output, "__dict__"):
        places = [(f"output.{key}", value) for key, value in vars(output).items()]
    logits = [
        place
        for place, value in places
        if isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == count
    ]
    remedy = (
        f"let it return only them: model.register_forward_hook(lambda module, args, output: {logits[0]})"
        if logits
        else "read it without its output: ClassSpace(model, class_embedding=model.head.weight, class_bias=model.head.bias)"
    )
    raise UnsupportedModelError(
        f"{name} returns a {type(output).__name__}, expected a tensor of class logits [B, C]=[B, {count}]; {remedy}"
    )


def check_tokens(increments: Sequence[Tensor], last: Tensor, points: Points, name: str) -> None:
    """Raise `UnsupportedModelError` where blocks hand on fewer tokens than they got (or more)."""
    counts = [increment.shape[1] for increment in increments] + [last.shape[1]]
    changed = next((i for i, count in enumerate(counts) if count != counts[0]), None)
    if changed is None:
        return
    where = f"after {block_name(points.n_blocks)}"
    if changed < points.n_increments:
        block = points.added(changed).block
        starts = points.block_input(changed) == changed - 1
        where = f"after {block_name(block - 1)}" if starts else f"inside {block_name(block)}"
    raise UnsupportedModelError(
        f"{name}: {counts[0]} tokens become {counts[changed]} {where}: tokens are dropped or merged on the way (as by ToMe, EViT, "
        "DynamicViT), so what is read has no place in the picture; switch that off (ToMe: model.r = 0), or load the weights "
        "into timm's plain model of the same name"
    )


def _check_finite(trace: Trace, name: str) -> None:
    """Weights that readings go through, or that the stream comes from, are finite."""
    lenses = [lens for lens in (trace.lens, trace.second_lens) if lens is not None]
    read = all(bool(torch.isfinite(part).all()) for lens in lenses for part in lens.tensors())
    if read and bool(torch.isfinite(trace.increments[-1]).all()):
        return
    model = trace.space.model if trace.space is not None else None
    named = () if model is None else (*model.named_parameters(), *model.named_buffers())
    broken = [key for key, value in named if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken or not read:
        several = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UnsupportedModelError(
            f"{name}: its weights contain NaN or infinite numbers ({broken[0] if broken else 'the class embedding'}{several}), "
            "from training that diverged, or from a dtype that cannot hold them; load weights that are finite, or use "
            "dtype=torch.float32"
        )
