"""A hash of a model's weights, by which what was computed or fitted with a model knows it again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_KNOWN: WeakKeyDictionary[nn.Module, tuple[list[Tensor], list[Any], str]] = WeakKeyDictionary()


def model_fingerprint(model: nn.Module, *, leave_out: str = "") -> str:
    """A short hash of a model: every tensor's name, kind and shape, the sum of all its values, and 256 of them.

    The sums are of the values' bits as whole numbers: exact in any order, so equal on every device, and different if any
    value is different.

    Parameters
    ----------
    model : nn.Module
    leave_out : str
        Tensors whose names start like this are not looked at: ``"head."`` gives the hash of the backbone.

    Returns
    -------
    str
        16 hexadecimal digits.

    Examples
    --------
    >>> first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> model_fingerprint(first) == model_fingerprint(first), model_fingerprint(first) == model_fingerprint(second)
    (True, False)
    """
    named = sorted(pair for pair in model.state_dict().items() if not leave_out or not pair[0].startswith(leave_out))
    read = [_read(tensor) for _, tensor in named]
    # All together, since every transfer from a GPU waits for it.
    numbers = torch.cat([part for part, _ in read]).cpu() if read else torch.empty(0)
    digest, start = hashlib.sha256(), 0
    for (name, tensor), (part, kind) in zip(named, read, strict=True):
        total, sample = numbers[start], numbers[start + 1 : start + len(part)].to(kind)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {int(total)} ".encode() + sample.numpy().tobytes())
        start += len(part)
    return digest.hexdigest()[:16]


def _read(tensor: Tensor) -> tuple[Tensor, torch.dtype]:
    """The sum of a tensor's bits as whole numbers, then up to 256 of them, int64; and the kind of number they were."""
    # Complex tensors are hashed as pairs of real numbers, sparse ones as dense.
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().to_dense().contiguous().flatten()
    bits = flat.view(_BITS[flat.element_size()])
    sampled = torch.linspace(0, len(bits) - 1, min(256, len(bits)), dtype=torch.float64, device="cpu").long()
    sample = bits[sampled.to(bits.device, non_blocking=True)]
    return torch.cat([bits.sum(dtype=torch.int64).view(1), sample.long()]), bits.dtype


def known_fingerprint(model: nn.Module) -> str:
    """`model_fingerprint`, computed again only where autograd has seen a tensor change; for checks before every reading."""
    named = sorted(model.state_dict(keep_vars=True).items())
    tensors = [tensor for _, tensor in named]
    state = [(name, t.dtype, None if t.is_inference() else t._version) for name, t in named]
    known = _KNOWN.get(model)
    if known is not None and known[1] == state and all(a is b for a, b in zip(known[0], tensors, strict=True)):
        return known[2]
    found = model_fingerprint(model)
    _KNOWN[model] = tensors, state, found
    return found
