"""Augmentation of photographs: random crops, rotation, colours, covered boxes, and mixing of two pictures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(pixels: Tensor) -> Tensor:
    """From bytes [B, 3, S, S] to the pixels that the model takes: float32 [B, 3, S, S]."""
    mean, std = _mean_and_std(pixels.device)
    return (pixels.float() / 255 - mean) / std


@functools.cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    return mean, std


def augment(pixels: Tensor, generator: torch.Generator, *, min_area: float = 0.3) -> Tensor:
    """Crop at random, rotate and shear a little, flip, recolour, and cover a box.

    Parameters
    ----------
    pixels : Tensor
        [B, 3, S, S], float32, normalised.
    generator : torch.Generator
        On the CPU, or where the pixels are.
    min_area : float
        Least share of the picture's area that a crop keeps.

    Returns
    -------
    Tensor
        [B, 3, S, S], float32.
    """
    batch = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(batch, *shape, generator=generator, device=generator.device)
        return low + (high - low) * drawn.to(pixels.device)

    side = uniform(min_area, 1.0).sqrt()
    stretch = torch.exp(uniform(-0.5, 0.5) * math.log(4 / 3))
    wide, high = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    turn, shear = uniform(-1, 1) ** 3 * 0.5, uniform(-1, 1) ** 3 * 0.3
    mirrored = torch.sign(uniform(-1, 1))
    x, y = uniform(-1, 1) * (1 - wide), uniform(-1, 1) * (1 - high)
    cos, sin = torch.cos(turn), torch.sin(turn)
    rows = [
        torch.stack([mirrored * wide * cos, high * (shear - sin), x], 1),
        torch.stack([mirrored * wide * sin, high * cos, y], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    gain, offset = torch.exp(uniform(-0.35, 0.35, 1, 1, 1)), uniform(-0.5, 0.5, 1, 1, 1)
    tint = uniform(-0.12, 0.12, 3, 1, 1)
    grey = moved.mean(1, keepdim=True)
    saturation = uniform(0.3, 1.5, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) > 0.08)
    coloured = (grey + (moved - grey) * saturation) * gain + offset + tint
    return _cover(coloured, uniform)


def _cover(pixels: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """Put a grey box of up to a third of the area over one picture in four."""
    size = pixels.shape[-1]
    area, shape = uniform(0.02, 0.33), torch.exp(uniform(-0.5, 0.5) * math.log(4))
    wide, high = (area * shape).sqrt() * size, (area / shape).sqrt() * size
    left, top = uniform(0, 1) * size - wide / 2, uniform(0, 1) * size - high / 2
    place = torch.arange(size, device=pixels.device)
    across = (place >= left[:, None]) & (place < (left + wide)[:, None])
    down = (place >= top[:, None]) & (place < (top + high)[:, None])
    box = down[:, :, None] & across[:, None, :] & (uniform(0, 1) < 0.25)[:, None, None]
    return pixels.masked_fill(box[:, None], 0.0)


def mix(pixels: Tensor, targets: Tensor, generator: torch.Generator, *, share: float | Tensor) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix (half each) of this share of the pictures, each with its counterpart in the reversed batch.

    Parameters
    ----------
    pixels : Tensor
        [B, 3, S, S].
    targets : Tensor
        [B, C], probabilities.
    generator : torch.Generator
        On the CPU, or where the pixels are.
    share : float or Tensor
        In [0, 1].

    Returns
    -------
    pixels : Tensor
        [B, 3, S, S].
    targets : Tensor
        [B, C], mixed in the same proportions.
    """
    draws = torch.rand(5, len(pixels), generator=generator, device=generator.device).to(pixels.device)
    mixed, cut, amount = draws[0] < share, draws[1] < 0.5, draws[2]
    size = pixels.shape[-1]
    side = (amount.sqrt() * size).round()
    left, top = ((draw * size - side / 2).round() for draw in draws[3:])
    place = torch.arange(size, device=pixels.device)
    across = (place >= left[:, None]) & (place < (left + side)[:, None])
    down = (place >= top[:, None]) & (place < (top + side)[:, None])
    outside = 1 - (down[:, :, None] & across[:, None, :]).float()
    own = torch.where(cut[:, None, None], outside, (1 - 0.5 * amount)[:, None, None].expand_as(outside))
    own = torch.where(mixed[:, None, None], own, torch.ones_like(own))
    kept = own.mean((1, 2))[:, None]
    both = own[:, None] * pixels + (1 - own[:, None]) * pixels.flip(0)
    return both, kept * targets + (1 - kept) * targets.flip(0)
