"""Input that is ready for a model: tensors that are taken as they are, checked for what they look like."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from classspace_widgets.images.preprocessing import Preprocessing

FAR_OUT = 30
"""How many times further out than any picture a ready tensor may lie before that is warned about: noise and adversarial
pictures lie a few times further out, pictures of 0..255 about a hundred times."""

OVERSHOOT = 0.05
"""How far a picture of 0..1 may go beyond it and is still taken for one: bicubic resizing goes that far."""


class Normalisation(Protocol):
    """Mean and standard deviation of every channel."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of every channel."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of every channel."""
        ...


@dataclass(frozen=True)
class Prepared:
    """Input of a model that was made or looked at before: taken as it is, and no picture is made of it for display.

    Attributes
    ----------
    pixels : Tensor [B, 3, height, width]

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> space.trace(Prepared(space.pixels(np.zeros((48, 64, 3), np.uint8)))).pictures is None
    True
    """

    pixels: Tensor


def as_batch(tensor: Tensor) -> Tensor:
    """Images ``[B, channels, height, width]``, also from a single one."""
    batch = tensor.unsqueeze(0) if tensor.ndim == 3 else tensor
    if batch.ndim != 4:
        hint = "; of a batch of images and labels give only the images" if tensor.ndim <= 1 else ""
        raise ValueError(
            "a tensor of images must have shape [B, 3, height, width] or [3, height, width], "
            f"got {tuple(tensor.shape)}{hint}"
        )
    return batch


def checked(tensor: Tensor, how: Preprocessing) -> Tensor:
    """A tensor that goes to the model as it is, its shape checked: ``[B, channels, height, width]``."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"ready input must be a tensor [B, channels, height, width], got {type(tensor).__name__}")
    batch = as_batch(tensor)
    if not batch.is_floating_point():
        raise ValueError(f"a tensor of images must hold floats (ready input) or uint8 (pictures), got {batch.dtype}")
    channels, (height, width) = len(how.mean), how.size
    given = tuple(batch.shape[2:])
    if batch.shape[0] < 1 or batch.shape[1] != channels or 0 in given or (how.fixed and given != how.size):
        hint = "; try tensor.permute(0, 3, 1, 2)" if batch.shape[-1] == channels else ""
        expected = f"[B, {channels}, {height}, {width}]" if how.fixed else f"[B, {channels}, height, width]"
        raise ValueError(f"images must have shape {expected}, got {tuple(tensor.shape)}{hint}")
    if any(n % of for n, of in zip(given, how.multiple, strict=True)):
        raise ValueError(f"height and width of images must be multiples of {how.multiple}, got {given}")
    return batch


def check_values(batches: Sequence[Tensor], how: Normalisation) -> None:
    """Ready pixels are finite, and lie where normalised ones lie; what is not on the CPU is not looked at.

    Parameters
    ----------
    batches : sequence of Tensor
        What was given together.
    how : Preprocessing, or anything else with a ``mean`` and ``std`` by channel

    Returns
    -------
    None
        It raises ``ValueError`` for values that are not finite, and warns about those that are far out or all in 0..1.

    Examples
    --------
    >>> how = ClassSpace.bundled().preprocessing
    >>> check_values([torch.full((3, 96, 96), torch.nan)], how)
    Traceback (most recent call last):
    ValueError: images contain NaN or infinite pixels
    """
    # Elsewhere, to look at values is to wait for the device.
    batches = [batch for batch in batches if batch.device.type == "cpu"]
    if not batches:
        return
    if not all(bool(torch.isfinite(batch).all()) for batch in batches):
        raise ValueError("images contain NaN or infinite pixels")
    usual = [(edge - mean) / std for mean, std in zip(how.mean, how.std, strict=True) for edge in (0, 1)]
    low, high = min(batch.min().item() for batch in batches), max(batch.max().item() for batch in batches)
    accepted = f"a float tensor is taken as input that is ready, normalised to {min(usual):.1f}..{max(usual):.1f}"
    if max(-low, high) > FAR_OUT * max(map(abs, usual)):
        warnings.warn(
            f"{accepted}, and this one holds {low:.3g}..{high:.3g}; pass pictures of 0..255 as uint8: tensor.to(torch.uint8)",
            stacklevel=3,
        )
    elif -OVERSHOOT <= low < high <= 1 + OVERSHOOT and (min(usual) < -2 * OVERSHOOT or max(usual) > 1 + 2 * OVERSHOOT):
        # No numbers here, so that one warning is shown for all pictures of a data set.
        warnings.warn(
            f"{accepted}, and all values lie in 0..1 as in a picture that is not; pass pictures as uint8, "
            "(tensor * 255).round().to(torch.uint8), or normalise with the mean and std of space.preprocessing",
            stacklevel=3,
        )
