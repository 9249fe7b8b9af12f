"""Pictures and masks changed together, and the token targets that follow from the masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from classspace_widgets.models.bundled import MEAN, STD

IGNORED, CONTEXT = -1, -2


def normalise(images: Tensor) -> Tensor:
    """Bytes [B, S, S, 3] to what the models take: float32 [B, 3, S, S]."""
    mean, std = torch.tensor(MEAN, device=images.device), torch.tensor(STD, device=images.device)
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def augment(pixels: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn, zoom, shift, flip and recolour.

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

    def even(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator).to(pixels.device)

    turn, zoom, side = even(-0.2, 0.2), even(0.85, 1.2), torch.sign(even(-1, 1))
    cos, sin = zoom * torch.cos(turn), zoom * torch.sin(turn)
    shift = even(-0.12, 0.12, 2)
    rows = [torch.stack([side * cos, -sin, shift[:, 0]], 1), torch.stack([side * sin, cos, shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    numbers = functional.grid_sample(
        masks[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    gain, offset = even(0.8, 1.2, 3, 1, 1) * even(0.85, 1.15, 1, 1, 1), even(-0.25, 0.25, 1, 1, 1)
    return moved * gain + offset, numbers[:, 0].to(torch.uint8)


def flip(pixels: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip every other picture [B, 3, S, S] and its mask [B, S, S] sideways, at random."""
    turned = (torch.rand(pixels.shape[0], generator=generator) < 0.5).to(pixels.device)
    return (
        torch.where(turned[:, None, None, None], pixels.flip(-1), pixels),
        torch.where(turned[:, None, None], masks.flip(-1), masks),
    )


def token_targets(masks: Tensor, classes: Tensor, patch: int, *, least: float = 0.4) -> Tensor:
    """Class index per image token [B, P], row by row.

    A token whose patch shows an object on at least the share `least` gets that object's class; one that shows none
    gets `CONTEXT`; the rest get `IGNORED`.

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
    targets = torch.where(share >= least, classes.gather(1, which), IGNORED)
    return torch.where(shares.sum(dim=1) == 0, CONTEXT, targets)
