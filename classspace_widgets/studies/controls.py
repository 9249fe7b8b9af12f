"""Tables of a model together with those of its random twins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def with_controls(trained: pd.DataFrame, random: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A model's table followed by that of its twins, with the column ``weights``; several twins as their mean."""
    parts = [("trained", trained)]
    if random:
        parts.append(("random", random[0] if len(random) == 1 else _mean_of(random)))
    return pd.concat([part.assign(weights=weights)[["weights", *part]] for weights, part in parts], ignore_index=True)


def numbered(twins: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables of several twins as one, with a column ``twin`` that counts from 1."""
    framed = [table.assign(twin=number)[["twin", *table]] for number, table in enumerate(twins, start=1)]
    return pd.concat(framed, ignore_index=True)


def _mean_of(twins: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean table of several twins, with their least and greatest values as ``low`` and ``high``."""
    measured = [c for c in twins[0] if c == "count" or pd.api.types.is_float_dtype(twins[0][c])]
    labels = [c for c in twins[0] if c not in measured]
    together = pd.concat(twins, ignore_index=True)
    grouped = together.groupby(labels, sort=False) if labels else together.groupby(lambda _: 0)
    mean = grouped[measured].mean()
    if "value" in mean:
        for edge, extreme in (("low", "min"), ("high", "max")):
            if edge in mean:
                mean[edge] = grouped["value"].agg(extreme)
    for column in mean:
        if str(column).startswith("p_"):
            mean[column] = np.nan  # the mean of p values is not a p value
    if "count" in mean:
        mean["count"] = mean["count"].round().astype(np.int64)
    mean = mean.reset_index() if labels else mean.reset_index(drop=True)
    return mean[list(twins[0])]
