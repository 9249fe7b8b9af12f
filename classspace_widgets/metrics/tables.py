"""Results as tables of pictures, to be joined with other measurements of the same pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import name_of
from classspace_widgets.masks import as_array, token_mask

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from classspace_widgets.metrics.decision import Decision


def masked_tokens(mask: Any, images: int, grid: tuple[int, int]) -> Tensor:
    """Token masks ``[B, P]`` int8 of one mask for all pictures, or of one for each: 1 object, 0 context, -1 neither."""
    array = as_array(mask)
    masks = array if array.ndim == 3 else array[None]
    if len(masks) not in (1, images):
        raise ValueError(f"mask must be one or B={images} of them, got {len(masks)}")
    return torch.stack([torch.from_numpy(token_mask(one, grid)) for one in masks]).expand(images, -1)


def decision_table(found: Decision, mask: Any) -> pd.DataFrame:
    """One row for each picture: see `Decision.table`."""
    import pandas as pd

    def names(classes: Tensor) -> list[str]:
        return [name_of(found.class_names, c) for c in classes.tolist()]

    count, last = len(found.labels), max(len(found.points) - 1, 1)
    answer, decided = found.final[:, -1, 0].cpu(), found.decided_at[:, -1].cpu()
    columns: dict[str, Any] = {
        "image": range(count),
        "name": [found.image_names[i] if i < len(found.image_names) else "" for i in range(count)],
        "label": found.labels.tolist(),
        "label_name": names(found.labels),
        "answer": answer.tolist(),
        "answer_name": names(answer),
        "correct": (answer == found.labels.cpu()).tolist(),
        "decided_at": decided.tolist(),
        "decided_point": [found.points[n].name if n >= 0 else "" for n in decided.tolist()],
        "decided_block": found.decided_block[:, -1].tolist(),
        "decided_share": _shares(decided, last).tolist(),
        "competitor_name": names(found.competitor[-1, :, -1]),
    }
    for name in ("margin", "entropy", "log_probability", "reciprocal_rank"):
        columns[name] = getattr(found, name)[-1, :, -1].tolist()
    for name in ("margin", "entropy", "log_probability", "reciprocal_rank", "tau"):
        columns[f"mean_{name}"] = getattr(found, name)[:, :, -1].nanmean(dim=0).tolist()
    image = found.decided_at[:, found.prefix : -1].cpu()
    inside = None if mask is None else masked_tokens(mask, count, found.grid)
    columns["image_decided_share"] = _shares(image, last).nanmedian(dim=1).values.tolist()
    if inside is not None:
        for name, number in (("object", 1), ("context", 0)):
            own = _shares(image, last).masked_fill(inside != number, torch.nan)
            columns[f"{name}_decided_share"] = own.nanmedian(dim=1).values.tolist()
    return pd.DataFrame(columns)


def _shares(numbers: Tensor, last: int) -> Tensor:
    """Numbers of points as a share of the depth, 0 to 1; NaN where nothing is read."""
    return (numbers.double() / last).masked_fill(numbers < 0, torch.nan)
