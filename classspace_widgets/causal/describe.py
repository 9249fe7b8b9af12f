"""The notebook's display of a sweep: its largest effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classspace_widgets.describe import FEW, name_of, table

if TYPE_CHECKING:
    from classspace_widgets.causal.sweeps import Sweep


def sweep_html(sweep: Sweep) -> str:
    """The largest effects of a sweep on each class."""
    place, rows = sweep.kind.removesuffix("s"), []
    for k, c in enumerate(sweep.classes[:FEW]):
        effect = sweep.effect[k].nan_to_num(0.0).cpu()
        for at in effect.abs().flatten().topk(min(FEW, effect.numel())).indices.tolist():
            block, column = divmod(at, effect.shape[1])
            where = f"block {sweep.blocks[block]}, {place} {sweep.places[column]}"
            rows.append((name_of(sweep.class_names, c), where, f"{effect[block, column].item():+.3f}"))
    head = ("class", "place", f"effect on its {sweep.measure}")
    return table(f"Largest effects of a sweep over {sweep.kind} ({sweep.mode})", rows, head, small=repr(sweep))
