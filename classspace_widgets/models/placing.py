"""Where a model runs, and in which precision, without touching the caller's; and copies that share nothing with it."""

from __future__ import annotations

import copy
import functools
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.models.refusals import expression

if TYPE_CHECKING:
    from torch import nn


MAX_OBJECTS = 10_000
"""Objects behind one attribute that are looked at: more belong to something else than to a replaced method."""


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
    return copied(model).to(device=device, dtype=dtype)


def copied(model: nn.Module, *, share_weights: bool = False) -> nn.Module:
    """A copy of a model that computes only with its own weights; compiled parts are copied as they were before.

    Parameters
    ----------
    model : nn.Module
    share_weights : bool
        Copy the modules alone: parameters and buffers are the model's own tensors.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        Where a function that was put into the model (a replaced ``forward``, a hook) holds on to the model's own modules
        or weights: copying does not reach into functions, so the copy would go on computing with the original's.

    Examples
    --------
    >>> plain = torch.nn.Linear(2, 2)
    >>> copied(plain).weight is plain.weight
    False
    """
    own = {id(one) for one in model.modules()} | {id(one) for one in (*model.parameters(), *model.buffers())}
    plain = {id(module): module._orig_mod for module in model.modules() if hasattr(module, "_orig_mod")}
    for name, module in model.named_modules():
        if id(module) in plain:
            continue
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules", "_compiled_call_impl"):
                continue  # tensors and modules are copied by torch, what was compiled is left out
            path = f"{name}.{attribute}" if name else attribute
            if _held_by_functions(value, own):
                if attribute.endswith("_hooks"):
                    what, undo = "a hook", "remove the hook (its handle's .remove())"
                else:
                    what, undo = "a function", f"undo it (del {expression(model, path)})"
                raise ValueError(
                    f"{type(model).__name__} cannot be copied (for a random twin, another device or dtype): {path} is {what} "
                    f"that holds on to this model's own modules, so a copy would go on computing with them; {undo}, or write "
                    "it as a method or a functools.partial of the module that it belongs to"
                )
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                raise ValueError(
                    f"{type(model).__name__} cannot be copied (for a random twin, another device or dtype): {path} is a tensor "
                    f"that autograd still follows; remove it (del {expression(model, path)}), or keep it detached"
                )
    # What is found in the memo takes the place of what would be copied.
    shared = (*model.parameters(), *model.buffers()) if share_weights else ()
    memo: dict[int, Any] = {id(tensor): tensor for tensor in shared}
    for compiled, original in plain.items():
        memo[compiled] = copy.deepcopy(original, memo)
    return copy.deepcopy(model, memo)


def _held_by_functions(value: Any, own: set[int]) -> bool:
    """Whether a function within a value, where copying does not reach, leads to one of the model's modules or tensors."""
    seen: set[tuple[int, bool]] = set()
    waiting: list[tuple[Any, bool]] = [(value, False)]
    while waiting and len(seen) < MAX_OBJECTS:
        one, behind = waiting.pop()  # behind: reached through a function
        if (id(one), behind) in seen:
            continue
        if id(one) in own:
            if behind:
                return True
            continue
        seen.add((id(one), behind))
        waiting.extend((part, behind or isinstance(one, FunctionType)) for part in _parts(one))
    return False


def _parts(value: Any) -> list[Any]:
    """What a value leads to."""
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *vars(value).values()]
        # Of what it finds by name in its file or notebook: what may be a model, or a function of one.
        named = [value.__globals__.get(name) for name in _names(value.__code__)]
        return held + [one for one in named if isinstance(one, (torch.nn.Module, torch.Tensor, MethodType, list, dict))]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, torch.nn.Module):
        return [*value.children(), *value.parameters(recurse=False)]
    if isinstance(value, (torch.Tensor, type, ModuleType)):
        return []
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _names(code: Any) -> set[str]:
    """Names that a function looks up, functions inside it included."""
    inner = [_names(one) for one in code.co_consts if hasattr(one, "co_names")]
    return set(code.co_names).union(*inner)
