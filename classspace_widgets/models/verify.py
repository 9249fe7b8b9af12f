"""The identities that readings rest on, checked on a real pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.models.refusals import REMEDY, UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.trace import Trace


MOST = 0.1
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
    precision = max(torch.finfo(last.dtype).eps, torch.finfo(trace.lens.folded.dtype).eps)
    total = trace.stream("residual", trace.n_blocks).to(trace.lens.folded.dtype)
    if not bool(torch.isfinite(last).all()):
        raise UnsupportedModelError(
            f"{name}: its residual stream becomes NaN or infinite on a noise image in {last.dtype}; "
            "check its weights, or use dtype=torch.float32 (bfloat16 does not overflow where float16 does)"
        )
    errors = {"residual": float((total - last.to(total.dtype)).abs().max() / last.abs().max().clamp_min(1e-12))}
    if not errors["residual"] <= min(8 * (len(trace.increments) + 1) * precision, MOST):
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
        if not errors["output"] <= min(2000 * precision, MOST):
            raise UnsupportedModelError(
                f"{name}: reading its last residual stream through its own norm and classifier does not give its "
                f"output (relative error {errors['output']:.1e}), so something else sits between them; {REMEDY}"
            )
    return errors
