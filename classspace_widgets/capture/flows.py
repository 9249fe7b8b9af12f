"""Where class logits stand, as a snapshot carries it: after each increment; see ``docs/snapshot_format.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.capture.reader import as_float
from classspace_widgets.metrics.flow import flow_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.capture.reader import Reader
    from classspace_widgets.snapshot.container import Array


def read_flow(reader: Reader, classes: Sequence[int]) -> dict[str, Array]:
    """Where the logits of some classes stand: ``flow`` [K, N, T] and ``flow_bias`` [K, N].

    Raises
    ------
    ValueError, RuntimeError
        As `metrics.flow`, with the reason.
    """
    wanted = torch.as_tensor(list(classes), device=reader.trace.output.device, dtype=torch.long).unsqueeze(0)
    found = flow_of(reader.trace, wanted)
    return {"flow": as_float(found.values[:, 0].permute(2, 0, 1)), "flow_bias": as_float(found.bias[:, 0].T)}


def flow_or_reason(reader: Reader, classes: Sequence[int]) -> tuple[dict[str, Array], str]:
    """The same, or nothing and why: a model or an intervention of which it is not defined is shown without."""
    try:
        return read_flow(reader, classes), ""
    except (ValueError, RuntimeError) as error:
        return {}, str(error)
