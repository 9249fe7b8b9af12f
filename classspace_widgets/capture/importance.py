"""Token importance as views read it: a map like any other, or the shares of blocks and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from classspace_widgets.explain.result import TokenImportance
    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import MapMeta


def importance_shares(found: TokenImportance) -> Array:
    """A token importance by class, block and head, ``[K, L, H, T]``; L or H is 1 where a method does not split."""
    if found.by_head is not None:
        values = found.by_head[0]
    elif found.by_block is not None:
        values = found.by_block[0].unsqueeze(2)
    else:
        values = found.maps[0][:, None, None]
    shares: Array = values.float().cpu().numpy()
    return shares


def importance_map(found: TokenImportance, class_name: str, *, image: int = 0) -> tuple[MapMeta, Array]:
    """A token importance as a snapshot's extra map: its description, and its values ``[T']``."""
    values = found.maps[image, 0].float().cpu().numpy()
    entry: MapMeta = {
        "name": f"{found.method}:{int(found.classes[image, 0])}",
        "label": f"{found.method} importance for {class_name}",
        "class": int(found.classes[image, 0]),
        "signed": bool(found.signed),
        "note": "" if found.prefix == 0 else "Prefix tokens take part and are shown beside the picture.",
    }
    return entry, values
