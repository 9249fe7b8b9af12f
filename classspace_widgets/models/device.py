"""What a GPU asks of its host: transfers that it is not waited for, memory that runs out, and its loss."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class DeviceLostError(RuntimeError):
    """The device no longer answers: nothing more can be computed on it in this process."""


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on a device; on its way from the CPU to a GPU in pinned memory, so that the host need not wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype, non_blocking=True)


@contextmanager
def counting(what: str, remedy: str) -> Iterator[None]:
    """Around what adds to sums: if memory runs out halfway, no smaller batch can repair them."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RuntimeError(f"the GPU's memory ran out while pictures were added to {what}; {remedy}") from error


def halved(size: int, error: RuntimeError, device: torch.device) -> int:
    """How many images to try at a time after an error with ``size`` of them; raises where fewer would not help.

    Warns
    -----
    UserWarning
        That memory ran out, and with how many images it goes on.

    Raises
    ------
    DeviceLostError
        For any other error of CUDA.
    RuntimeError
        Where memory does not suffice for one image; the error itself where it is not about the device.
    """
    if not isinstance(error, torch.OutOfMemoryError):
        if "CUDA error" not in str(error):
            raise error
        raise DeviceLostError(
            f"{device} no longer answers ({str(error).strip().splitlines()[0]}), and nothing more can be computed on it in this "
            "process; start a new one (in a notebook, restart the kernel). A study goes on from its checkpoint with "
            "resume=True, the fit of a lens from its unfinished= file"
        ) from error
    if size == 1:
        raise RuntimeError(
            "the GPU's memory does not suffice for one image at a time; use a smaller model, "
            "dtype=torch.bfloat16, or device='cpu'"
        ) from error
    smaller = (size + 1) // 2
    warnings.warn(
        f"the memory of {device} does not suffice for {size} images at a time; going on with {smaller}", stacklevel=3
    )
    torch.cuda.empty_cache()
    return smaller
