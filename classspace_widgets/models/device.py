"""What a GPU asks of its host: transfers that it is not waited for, memory that runs out, and its loss."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from torch import Tensor

K = TypeVar("K")


class DeviceLostError(RuntimeError):
    """The device no longer answers: nothing more can be computed on it in this process."""


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on a device; on its way from the CPU to a GPU in pinned memory, so that the host need not wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype, non_blocking=True)


class Fetch(Generic[K]):
    """Tensors on their way to the host.

    Those on a GPU travel all together, into pinned memory, behind what is queued there; nobody waits for them before `arrays`.
    Tensors of the host are handed on as they are.
    """

    def __init__(self, tensors: Mapping[K, Tensor]) -> None:
        self._here = {key: tensor for key, tensor in tensors.items() if tensor.device.type != "cuda"}
        there = {key: tensor.detach() for key, tensor in tensors.items() if key not in self._here}
        self._layout: list[tuple[K, torch.dtype, torch.Size, int]] = []
        if not there:
            return
        # Large items first, so that each begins at a multiple of its size.
        ordered = sorted(there.items(), key=lambda item: -item[1].element_size())
        self._layout = [(key, t.dtype, t.shape, t.numel() * t.element_size()) for key, t in ordered]
        packed = torch.cat([tensor.contiguous().flatten().view(torch.uint8) for _, tensor in ordered])
        self._bytes = torch.empty(packed.shape, dtype=torch.uint8, device="cpu").pin_memory()
        self._bytes.copy_(packed, non_blocking=True)
        self._device, self._arrived = packed.device, torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived.record(torch.cuda.current_stream(packed.device))

    def arrays(self) -> dict[K, np.ndarray[Any, Any]]:
        """Wait until they are there, and give them as arrays.

        Raises
        ------
        DeviceLostError
            If the device failed at them, or at anything queued before them.
        """
        found = {key: tensor.detach().numpy() for key, tensor in self._here.items()}
        if self._layout:
            try:
                self._arrived.synchronize()
            except RuntimeError as error:
                raise _lost(self._device, error) from error
        start = 0
        for key, dtype, shape, size in self._layout:
            found[key] = self._bytes[start : start + size].view(dtype).view(shape).numpy()
            start += size
        return found


@contextmanager
def counting(what: str, remedy: str) -> Iterator[None]:
    """Around what adds to sums: if memory runs out halfway, no smaller batch can repair them."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RuntimeError(f"the GPU's memory ran out while pictures were added to {what}; {remedy}") from error


def _lost(device: torch.device, error: RuntimeError) -> DeviceLostError:
    return DeviceLostError(
        f"{device} no longer answers ({str(error).strip().splitlines()[0]}), and nothing more can be computed on it in this "
        "process; start a new one (in a notebook, restart the kernel). A study goes on from its checkpoint with "
        "resume=True, the fit of a lens from its unfinished= file"
    )


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
        raise _lost(device, error) from error
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
