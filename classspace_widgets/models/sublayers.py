"""What a block's attention and MLP add to the residual stream, whichever module of the block it comes out of.

timm passes what a sublayer adds through a ``drop_path`` module, after norms and LayerScale: its output is the increment.
Some blocks have one such module for both sublayers; then calls are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.models.refusals import REMEDY, UnsupportedModelError
from classspace_widgets.points import PARALLEL, SEQUENTIAL, SUBLAYERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


def adding_modules(block: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The modules whose outputs are what attention and MLP add; one and the same where it serves both; None without any."""
    owner: Any = block
    if not (hasattr(block, "attn") and hasattr(block, "mlp")):
        return None
    if hasattr(block, "drop_path1") and hasattr(block, "drop_path2"):
        return owner.drop_path1, owner.drop_path2
    return (owner.drop_path, owner.drop_path) if hasattr(block, "drop_path") else None


def on_added(block: nn.Module, sublayer: str, call: Callable[..., Tensor | None]) -> list[Any]:
    """Call a forward hook with what a sublayer adds, ``call(module, args, output)``, in every pass of a block.

    The modules that hand it on may serve both sublayers (``drop_path`` of timm before 0.6, DINO, MAE, BEiT), and several
    blocks too: only calls made inside the block count, and of a module that serves both the first is attention's.

    Parameters
    ----------
    block : nn.Module
        A sequential block.
    sublayer : str
        ``"attention"`` or ``"mlp"``.
    call : callable
        As a forward hook of torch: what it returns, other than None, takes the place of the output.

    Returns
    -------
    list
        Handles of the hooks, to be removed.
    """
    place = SUBLAYERS.index(sublayer)
    found = adding_modules(block)
    assert found is not None
    both = found[0] is found[1]
    inside, calls = False, 0

    def enter(_module: nn.Module, _args: tuple[Any, ...]) -> None:
        nonlocal inside, calls
        inside, calls = True, 0

    def leave(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        nonlocal inside
        inside = False

    def counted(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        nonlocal calls
        if not inside:
            return None
        calls += 1
        return call(module, args, output) if not both or calls == place + 1 else None

    return [
        block.register_forward_pre_hook(enter),
        found[place].register_forward_hook(counted),
        block.register_forward_hook(leave),
    ]


def layout_of(block: nn.Module, name: str, width: int) -> str:
    """``"sequential"`` (attention, then MLP: two increments a block) or ``"parallel"`` (one increment a block)."""
    found = adding_modules(block)
    if found is not None and found[0] is not found[1]:
        return SEQUENTIAL
    if found is not None:
        calls = _calls(block, found[0], width)
        if calls in (1, 2):
            return SEQUENTIAL if calls == 2 else PARALLEL
        reason = "but a block cannot be run by itself" if calls is None else f"it is called {calls} times"
        raise UnsupportedModelError(
            f"{name} has blocks of type {type(block).__name__} whose attention and MLP share one module for what they add "
            f"(drop_path), expected to be called once or twice a block, {reason}; give each its own, drop_path1 and drop_path2"
        )
    # A sum of several attentions, or attention and MLP in parallel: only what the whole block adds is defined.
    if hasattr(block, "drop_path") or (hasattr(block, "attns") and hasattr(block, "ffns")):
        return PARALLEL
    raise UnsupportedModelError(
        f"{name} has blocks of type {type(block).__name__}, where what attention and MLP add cannot be found; {REMEDY}"
    )


def _calls(block: nn.Module, module: nn.Module, width: int) -> int | None:
    """How often a block calls a module, tried on two tokens; None where the block cannot be run by itself."""
    count = 0

    def called(*_: Any) -> None:
        nonlocal count
        count += 1

    parameter = next(block.parameters())
    training = [part for part in block.modules() if part.training]
    handle = module.register_forward_hook(called)
    block.eval()
    try:
        with torch.no_grad(), torch.autocast(parameter.device.type, enabled=False):
            block(torch.zeros(1, 2, width, dtype=parameter.dtype, device=parameter.device))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return None
    finally:
        handle.remove()
        for part in training:
            part.training = True
    return count
