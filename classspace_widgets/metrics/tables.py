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
    from classspace_widgets.metrics.norms import TokenNorms


def masked_tokens(mask: Any, images: int, grid: tuple[int, int]) -> Tensor:
    """Token masks ``[B, P]`` int8 of one mask for all pictures, or of one for each: 1 object, 0 context, -1 neither."""
    array = as_array(mask)
    masks = array if array.ndim == 3 else array[None]
    if len(masks) not in (1, images):
        raise ValueError(f"mask must be one or B={images} of them, got {len(masks)}")
    return torch.stack([torch.from_numpy(token_mask(one, grid)) for one in masks]).expand(images, -1)


def decision_numbers(found: Decision, inside: Tensor | None = None) -> dict[str, Tensor]:
    """Numbers about the answer of every picture, ``[B]`` float64 each: see `Decision.table`."""
    last = max(len(found.points) - 1, 1)
    decided = found.decided_at[:, -1]
    numbers = {
        "correct": found.first[-1, :, -1] == found.labels,
        "decided_at": decided,
        "decided_block": found.decided_block[:, -1],
        "decided_share": _shares(decided, last),
    }
    read = {
        name: getattr(found, name)[:, :, -1]
        for name in ("margin", "entropy", "log_probability", "reciprocal_rank", "tau")
    }
    numbers |= {name: values[-1] for name, values in read.items() if name != "tau"}
    numbers |= {f"mean_{name}": values.nanmean(dim=0) for name, values in read.items()}
    image = _shares(found.decided_at[:, found.prefix : -1], last)
    numbers["image_decided_share"] = image.nanmedian(dim=1).values
    if inside is not None:
        for name, number in (("object", 1), ("context", 0)):
            own = image.masked_fill(inside.to(image.device) != number, torch.nan)
            numbers[f"{name}_decided_share"] = own.nanmedian(dim=1).values
    return {name: values.double() for name, values in numbers.items()}


def decision_table(found: Decision, mask: Any) -> pd.DataFrame:
    """One row for each picture: see `Decision.table`."""
    import pandas as pd

    count = len(found.labels)
    inside = None if mask is None else masked_tokens(mask, count, found.grid)
    numbers = {name: values.tolist() for name, values in decision_numbers(found, inside).items()}
    columns: dict[str, Any] = {
        "image": range(count),
        "name": [found.image_names[i] if i < len(found.image_names) else "" for i in range(count)],
    }
    classes = {"label": found.labels, "answer": found.first[-1, :, -1], "competitor": found.competitor[-1, :, -1]}
    for name, indices in classes.items():
        columns[name] = indices.tolist()
        columns[f"{name}_name"] = [name_of(found.class_names, c) for c in columns[name]]
    columns["correct"] = [bool(n) for n in numbers.pop("correct")]
    for name in ("decided_at", "decided_block"):
        columns[name] = [int(n) for n in numbers.pop(name)]
    columns["decided_point"] = [found.points[n].name if n >= 0 else "" for n in columns["decided_at"]]
    return pd.DataFrame(columns | numbers)


def norms_table(found: TokenNorms) -> pd.DataFrame:
    """One row for each outlier of each block, the longest first: see `TokenNorms.table`."""
    import pandas as pd

    places = found.outliers.nonzero()
    block, image, token = places.T
    patch = token - found.prefix
    received = torch.full((len(places),), torch.nan)
    if found.received is not None:
        read = block < len(found.received)
        received[read.cpu()] = found.received[block[read], image[read], token[read]].cpu()
    columns: dict[str, Any] = {"image": image, "block": block, "token": token}
    columns |= {"row": patch // max(found.grid[1], 1), "column": patch % max(found.grid[1], 1)}
    columns |= {"norm": found.norms[block, image, token], "received": received}
    columns = {name: values.tolist() for name, values in columns.items()}
    for kind, classes in found.classes.items():
        own = classes[block, image, token].tolist()
        columns[f"class ({kind})"] = [name_of(found.class_names, c) if c >= 0 else "" for c in own]
    return pd.DataFrame(columns).sort_values("norm", ascending=False, ignore_index=True, kind="stable")


def _shares(numbers: Tensor, last: int) -> Tensor:
    """Numbers of points as a share of the depth, 0 to 1; NaN where nothing is read."""
    return (numbers.double() / last).masked_fill(numbers < 0, torch.nan)
