"""Agreement of a map with an object's mask on the patch grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SCORES = ("pointing_game", "iou", "average_precision", "energy")


def mask_scores(scores: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Agreement of importance maps with object masks, per image.

    Parameters
    ----------
    scores : Tensor [B, P]
        Importance of the image tokens.
    masks : Tensor [B, P]
        1 (or True) inside the object, 0 outside, -1 for tokens to ignore.

    Returns
    -------
    dict of str to Tensor [B], float64
        NaN if an object covers no token or all tokens.

        - ``pointing_game``: 1 if the highest score is inside, 0 if it is outside; for ties the share of them inside.
        - ``iou``: intersection over union at the best threshold of each image.
        - ``average_precision``: ``sum (R_n - R_{n-1}) P_n`` over thresholds; tied scores share one threshold.
        - ``energy``: share of the positive importance that is inside (NaN if none is positive).

    Examples
    --------
    >>> mask_scores(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[1, 0, 0]]))["iou"]
    tensor([1.], dtype=torch.float64)
    """
    if scores.ndim != 2 or scores.shape != masks.shape:
        raise ValueError(
            f"scores and masks must both have shape [B, P], got {tuple(scores.shape)} and {tuple(masks.shape)}"
        )
    score, mask = scores.double(), masks.long().to(scores.device)
    used, inside = mask >= 0, mask == 1
    low = torch.full_like(score, -torch.inf)
    ranked, order = torch.where(used, score, low).sort(dim=1, descending=True, stable=True)
    counted = used.gather(1, order).double()
    hits = (inside.gather(1, order)).double().cumsum(dim=1)
    taken = counted.cumsum(dim=1)
    total = inside.sum(dim=1, keepdim=True).double()
    # A threshold separates tokens only where the next score is lower.
    ends = torch.ones_like(used)
    ends[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    ends &= counted.bool()
    iou = torch.where(ends, hits / (taken + total - hits), 0.0).amax(dim=1)
    recall = torch.where(ends, hits, 0.0).cummax(dim=1).values / total
    gained = torch.diff(recall, dim=1, prepend=torch.zeros_like(recall[:, :1]))
    precision = (torch.where(ends, hits / taken, 0.0) * gained).sum(dim=1)
    first = (score == ranked[:, :1]) & used
    pointing = (first & inside).sum(dim=1).double() / first.sum(dim=1)
    positive = torch.where(used, score.clamp_min(0), 0.0)
    energy = (positive * inside).sum(dim=1) / positive.sum(dim=1)
    defined = (inside.any(dim=1)) & ((mask == 0).any(dim=1))
    values = {"pointing_game": pointing, "iou": iou, "average_precision": precision, "energy": energy}
    return {name: torch.where(defined, value, torch.nan) for name, value in values.items()}
