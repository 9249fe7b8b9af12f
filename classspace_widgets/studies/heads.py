"""Contributions of attention heads to a class, over many pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from classspace_widgets.lookup import at_least, class_index, items_of
from classspace_widgets.metrics import output_by_head
from classspace_widgets.progress import progress_bar
from classspace_widgets.space.space import ClassSpace
from classspace_widgets.studies.statistics import bootstrap_ci
from classspace_widgets.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    Classes = Sequence[int | str] | int | str


def head_table(
    source: ClassSpace | Trace,
    classes: Classes,
    *,
    images: Any = None,
    batch_size: int = 8,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Contribution of every attention head to a class: the mean over pictures of its direct share of the logit, with interval.

    The numbers are those of `output_by_head`; the interval is that of `studies.bootstrap_ci`, which resamples whole pictures.

    Parameters
    ----------
    source : ClassSpace or Trace
        A model (with ``images``), or a trace of several pictures made with ``heads=True``.
    classes : class, or K classes
        By index or name.
    images : sequence of images
        With a `ClassSpace`: the pictures, each as in `ClassSpace.trace`.
    batch_size : int
        Pictures in a forward pass.
    replicates, level, seed
        As in `studies.bootstrap_ci`.

    Returns
    -------
    DataFrame
        A row for each class and head, largest mean first: ``class_name``, ``block`` (1..L), ``head`` (0..H-1),
        ``value`` (mean, in logits), ``low``, ``high`` and ``count`` (pictures). A single picture has no
        interval: ``low`` and ``high`` are NaN.

    Raises
    ------
    ValueError
        For a class that does not exist, no picture, or a trace without heads.
    UnsupportedModelError
        As in `direct_by_head`.

    Examples
    --------
    >>> from classspace_widgets.scenes import make_scene
    >>> pictures = [make_scene(seed, label="fish").picture for seed in range(4)]
    >>> table = head_table(ClassSpace.bundled(), "fish", images=pictures)
    >>> table.columns.tolist(), len(table)
    (['class_name', 'block', 'head', 'value', 'low', 'high', 'count'], 32)
    """
    import pandas as pd

    batches = _batches(source, images, at_least(batch_size, "batch_size (pictures in a forward pass)", 1))
    parts = []
    with progress_bar(len(batches), "heads", "batch") as bar:
        for batch in batches:
            trace = cast("Trace", batch) if batch is source else cast("ClassSpace", source).trace(batch, heads=True)
            parts.append(output_by_head(trace, classes).cpu())
            bar.update()
    values = torch.cat(parts, dim=-1).permute(3, 1, 0, 2).double().numpy()  # [B, K, L, H]
    low = high = np.full(values.shape[1:], np.nan)
    if len(values) > 1:
        low, high = bootstrap_ci(values, replicates=replicates, level=level, seed=seed)
    names = [source.class_names[class_index(source.class_names, c)] for c in items_of(classes)[0]]
    index = pd.MultiIndex.from_product(
        [names, range(1, values.shape[2] + 1), range(values.shape[3])], names=["class_name", "block", "head"]
    )
    columns = {"value": values.mean(axis=0).ravel(), "low": low.ravel(), "high": high.ravel(), "count": len(values)}
    table = pd.DataFrame(columns, index=index).reset_index()
    return table.sort_values("value", ascending=False, ignore_index=True, kind="stable")


def _batches(source: ClassSpace | Trace, images: Any, size: int) -> list[Any]:
    """The trace itself, or the pictures in batches."""
    if isinstance(source, Trace):
        if images is not None:
            raise ValueError("a Trace contains its own images; pass the ClassSpace to read others")
        return [source]
    if not isinstance(source, ClassSpace):
        raise TypeError(f"head_table takes a ClassSpace (with images=) or a Trace, got {type(source).__name__}")
    if images is None:
        raise ValueError("head_table needs images= with a ClassSpace")
    several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
    pictures = images if several else [images]
    if len(pictures) == 0:
        raise ValueError("head_table needs at least one picture in images=, got none")
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]
