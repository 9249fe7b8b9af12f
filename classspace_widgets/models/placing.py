"""Where a model runs, and in which precision, without touching the caller's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def device_of(device: str | torch.device, model: nn.Module) -> torch.device:
    """The device asked for: ``"auto"`` is where the model is; raises where CUDA is asked for and absent."""
    if device == "auto":
        return next(model.parameters()).device
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', or another that torch knows, got {device!r}") from None
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device {str(wanted)!r} was asked for, but torch sees no CUDA device here; use device='cpu'"
        )
    return wanted


def placed(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """The model itself where it is in place already, else a copy, so that the caller's stays as it was."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a floating torch.dtype such as torch.bfloat16, got {dtype!r}")
    parameter = next(model.parameters())
    here = parameter.device.type == device.type and device.index in (None, parameter.device.index)
    if here and dtype in (None, parameter.dtype):
        return model
    return copy.deepcopy(model).to(device=device, dtype=dtype)
