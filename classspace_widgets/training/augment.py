"""Pictures and masks changed together, and the token targets that follow from the masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from classspace_widgets.models.bundled import MEAN, STD

IGNORED, CONTEXT = -1, -2


def normalise(images: Tensor) -> Tensor:
    """From bytes [B, S, S, 3] to the pixels that the models take: float32 [B, 3, S, S]."""
    mean, std = torch.tensor(MEAN, device=images.device), torch.tensor(STD, device=images.device)
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def augment(pixels: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotate, zoom, shift and flip pictures with their masks, and recolour the pictures.

    Parameters
    ----------
    pixels : Tensor
        [B, 3, S, S], float32, normalised.
    masks : Tensor
        [B, S, S], uint8 object numbers.
    generator : torch.Generator
        On the CPU.
    """
    batch = pixels.shape[0]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator).to(pixels.device)

    angle, zoom, mirror = uniform(-0.2, 0.2), uniform(0.85, 1.2), torch.sign(uniform(-1, 1))
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    shift = uniform(-0.12, 0.12, 2)
    rows = [torch.stack([mirror * cos, -sin, shift[:, 0]], 1), torch.stack([mirror * sin, cos, shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    numbers = functional.grid_sample(
        masks[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    gain, offset = uniform(0.8, 1.2, 3, 1, 1) * uniform(0.85, 1.15, 1, 1, 1), uniform(-0.25, 0.25, 1, 1, 1)
    return moved * gain + offset, numbers[:, 0].to(torch.uint8)


def flip(pixels: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror each picture [B, 3, S, S] and its mask [B, S, S] left to right, with probability 1/2."""
    flipped = (torch.rand(pixels.shape[0], generator=generator) < 0.5).to(pixels.device)
    return (
        torch.where(flipped[:, None, None, None], pixels.flip(-1), pixels),
        torch.where(flipped[:, None, None], masks.flip(-1), masks),
    )


def token_targets(masks: Tensor, classes: Tensor, patch: int, *, min_share: float = 0.4) -> Tensor:
    """Class index per image token [B, P], row by row.

    A token gets an object's class where the object covers at least `min_share` of its patch, `CONTEXT` where the patch
    shows no object, and `IGNORED` otherwise.

    Parameters
    ----------
    masks : Tensor
        [B, S, S], object numbers from 1, 0 for context.
    classes : Tensor
        [B, objects], class index of each object, -1 for none.
    """
    numbers = torch.arange(1, classes.shape[1] + 1, device=masks.device)
    shown = (masks[:, None] == numbers[None, :, None, None]).float()
    shares = functional.avg_pool2d(shown, patch).flatten(2)
    share, which = shares.max(dim=1)
    targets = torch.where(share >= min_share, classes.gather(1, which), IGNORED)
    return torch.where(shares.sum(dim=1) == 0, CONTEXT, targets)
