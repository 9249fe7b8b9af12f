"""Whether the meta data and the arrays of a container fit one another, so that a reader can rely on it.

``docs/snapshot_format.md`` says in words what is checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from classspace_widgets.points import LAYOUTS, Points
from classspace_widgets.snapshot.lenses import check_lenses
from classspace_widgets.validate import Fields, below, shaped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from classspace_widgets.snapshot.container import Array

NO_NEURON = 0xFFFFFFFF
"""Stands in a memory atlas where a class has fewer neurons than other classes."""


def check_snapshot(meta: object, arrays: Mapping[str, Array]) -> None:
    """Raise `ValueError` unless meta data and arrays are those of a whole snapshot."""
    fields = Fields(meta)
    blocks, heads = fields.whole("model.blocks", 0), fields.whole("model.heads", 0)
    numbering = Points(blocks, fields.one_of("model.layout", LAYOUTS))
    fields.text("model.name")
    tokens = fields.whole("tokens.count", 1)
    shown = tokens + fields.flag("tokens.pooled")
    n, s = numbering.n_increments, len(numbering)
    grid, prefix = fields.wholes("tokens.grid", 1), fields.texts("tokens.prefix")
    if len(grid) != 2 or len(prefix) + grid[0] * grid[1] != tokens:
        raise ValueError(f"{len(prefix)} prefix tokens and a grid of {grid} are not {tokens} tokens")
    fields.whole("tokens.output", 0, shown - 1)
    if fields.has("tokens.removed"):
        fields.wholes("tokens.removed", 0, tokens - 1)
    count = fields.whole("classes.count", 1)
    kept = fields.wholes("classes.kept", 0, count - 1)
    if len(fields.texts("classes.names")) != count or not kept or len(set(kept)) != len(kept):
        raise ValueError(f"classes.names must name {count} classes, and classes.kept hold some of them, each once")
    mode = fields.one_of("payload.mode", ("all", "classes", "increments"))
    fields.text("payload.note")
    ranks_only = fields.has("payload.ranks_only") and fields.flag("payload.ranks_only")
    points = fields.wholes("payload.points", 0, s - 1) if fields.has("payload.points") else range(s)
    _check_rest(fields, s)
    k, p = len(kept), len(points)
    if mode == "all" and k != count:
        raise ValueError(f"payload.mode is 'all', and {k} of {count} classes are kept")
    shaped(arrays, "sigma", (s, shown), "f")
    for name in ("offset", "output_logits"):
        shaped(arrays, name, (count,), "f")
    if not ranks_only:
        shaped(arrays, "raw", (k, n, shown), "f")
    if mode != "all":
        below(shaped(arrays, "ranks", (k, p, shown), "u"), "ranks", count)
        top = shaped(arrays, "top", (p, shown, None), "u")
        below(top, "top", count)
        shaped(arrays, "top_logits", top.shape, "f")
    if mode != "all" and not ranks_only:
        shaped(arrays, "lse", (p, shown), "f")
    if mode == "increments":
        width = shaped(arrays, "increments", (n, shown, None), "f").shape[2]
        shaped(arrays, "increment_scale", (n,), "f")
        shaped(arrays, "embedding", (count, width), "f")
        fields.number("embedding_scale")
    check_lenses(fields, arrays, (k, p, shown))
    rows = len(fields.wholes("attention.rows", 0, shown - 1)) if "attention" in arrays else None
    optional: dict[str, tuple[tuple[int | None, ...], str]] = {
        "attention": ((blocks, heads, rows, tokens), "u"),
        "head_raw": ((k, blocks, heads, rows), "f"),
        "value_raw": ((k, blocks, heads, tokens), "f"),
        "attention_bias_raw": ((k, blocks), "f"),
        "norms": ((n, shown), "f"),
        "received": ((blocks, shown), "f"),
        "flow": ((k, n, tokens), "f"),
        "flow_bias": ((k, n), "f"),
        "image": ((None,), "u"),
        "photo": ((None,), "u"),
        "mask": ((fields.whole("image.height", 0), fields.whole("image.width", 0)), "u"),
        "maps": ((len(fields.objects("maps")) if "maps" in arrays else 0, shown), "f"),
    }
    for name, (shape, kinds) in optional.items():
        if name in arrays:
            shaped(arrays, name, shape, kinds)
    if "mask" in arrays:
        below(arrays["mask"], "mask", 1 + len(fields.objects("objects")))


def _check_rest(fields: Fields, points: int) -> None:
    """Check the values that no array depends on."""
    for path in ("image.name", "image.mime"):
        fields.text(path)
    if fields.value("image.label") is not None:
        fields.whole("image.label", 0, fields.value("classes.count") - 1)
    if fields.has("image.photo"):
        _check_photo(fields)
    for thing in fields.objects("objects"):
        thing.text("name")
    if fields.has("maps"):
        for thing in fields.objects("maps"):
            thing.text("name")
            thing.text("label")
    if fields.has("answer"):
        fields.text("answer.text")
    fields.texts("caveats")
    fields.wholes("unreachable", 0, points - 1)
    if fields.value("intervention") is not None:
        fields.text("intervention.label")
    fields.value("exactness.logits")
    fields.text("exactness.note")


def _check_photo(fields: Fields) -> None:
    for side in ("width", "height"):
        fields.whole(f"image.photo.{side}", 1)
    fields.text("image.photo.mime")
    left, top, right, bottom = fields.numbers("image.photo.crop", 4)
    if not (left < right and top < bottom):
        raise ValueError(f"a crop from {left}, {top} to {right}, {bottom} has no extent")


def check_atlas(meta: object, arrays: Mapping[str, Array]) -> None:
    """Raise `ValueError` unless meta data and arrays are those of a whole memory atlas."""
    fields = Fields(meta)
    fields.text("model.name")
    widths, grid = fields.wholes("widths", 0), fields.wholes("grid", 1)
    if len(widths) != 2 or len(grid) != 2:
        raise ValueError(f"widths and grid must be two numbers each, got {widths} and {grid}")
    n = fields.whole("model.blocks", 0) * sum(widths)
    classes, pictures = len(fields.texts("classes.names")), fields.whole("pictures.count", 0)
    labels = fields.wholes("pictures.labels", -1)
    if len(labels) not in (0, pictures):
        raise ValueError(f"{len(labels)} labels cannot belong to {pictures} pictures")
    top = shaped(arrays, "top", (n, None), "u")
    below(top, "top", classes)
    shaped(arrays, "top_cosine", top.shape, "f")
    values = shaped(arrays, "values", (classes, 2, None), "u")
    below(values, "values", n, missing=NO_NEURON)
    shaped(arrays, "values_cosine", values.shape, "f")
    if pictures:
        patch = shaped(arrays, "patch", (n, None), "u")
        below(patch, "patch", pictures * grid[0] * grid[1])
        shaped(arrays, "coefficient", patch.shape, "f")
        ends = shaped(arrays, "picture_ends", (pictures,), "u").astype(np.int64)
        size = len(shaped(arrays, "picture_bytes", (None,), "u"))
        if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != size:
            raise ValueError(f"the ends of its {pictures} pictures do not divide {size} bytes")
