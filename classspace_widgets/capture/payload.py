"""From a `Trace` (torch, on the device) to a `Snapshot` (numpy, compact): what of it travels, by size."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from classspace_widgets.capture.flows import flow_or_reason
from classspace_widgets.capture.lenses import lens_metas, read_lenses, several_lenses
from classspace_widgets.capture.picture import image_meta
from classspace_widgets.capture.reader import TOP, Reader, RoundingError, as_float, fitting, rounding_error
from classspace_widgets.certainty import answer_meta
from classspace_widgets.files import readable
from classspace_widgets.lens.lens import full_precision
from classspace_widgets.lens.readout import pools
from classspace_widgets.lookup import class_index, items_of
from classspace_widgets.masks import object_numbers
from classspace_widgets.models.bundled import card_of, described
from classspace_widgets.progress import progress_bar
from classspace_widgets.snapshot.container import Array
from classspace_widgets.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.lens import FittedLens
    from classspace_widgets.snapshot.meta import (
        ExactnessMeta,
        ExtraMeta,
        ModelMeta,
        PayloadMode,
        SnapshotMeta,
        TokensMeta,
    )
    from classspace_widgets.trace import Trace

__all__ = ["capture"]

ALL_LIMIT = 6_000_000
"""Bytes of float32 readings up to which a snapshot carries every class: the 24 of a bundled model take 0.2 MB, the 1000 of
ViT-B/16 would take 20 MB."""
SUMMARY = ("top", "top_logits", "lse")
"""Arrays about all classes, which are the same whichever classes are kept."""


def capture(
    trace: Trace,
    *,
    image: int = 0,
    classes: Sequence[int | str] | int | str | None = None,
    payload: str = "auto",
    mask: Array | None = None,
    objects: Sequence[int | str | None] = (),
    label: int | str | None = None,
    title: str = "",
    lenses: FittedLens | Sequence[FittedLens] = (),
    flow: bool = False,
    rows: Sequence[int] | None = None,
    known: Snapshot | None = None,
) -> Snapshot:
    """Reduce one image of a trace to the arrays that views need.

    Parameters
    ----------
    trace : Trace
    image : int
        Which image of the batch.
    classes : class, or several, optional
        Classes to carry besides the predicted ones; with ``payload="classes"`` given explicitly, only these.
    payload : str
        ``"all"``: the readings of every class (exact; for models of few classes).  ``"classes"``: exact readings and
        ranks of the classes that matter, the rest on request.  ``"increments"``: the increments and the class
        embedding in float16, so that every class can be read with no kernel; ranks are then approximate.
        ``"auto"``: ``"all"`` up to 6 MB of readings, else ``"classes"``.
    mask : ndarray [height, width], optional
        Where the objects are, in the displayed picture's pixels: 0 is context, i the i-th of ``objects``, the main one
        first; boolean, or only 0 and 255: one object; 255 beside other numbers: undecided, which counts as context.
        Views outline every object; class tokens are those of the object whose class is read, or else of the first, the main one.
    objects : sequence, optional
        Class (index or name) of every object in the mask, in the order of its numbers; None for an unknown one.
    label : int or str, optional
        The picture's true class.
    title : str
        What views call the picture; by default its name.
    lenses : FittedLens or sequence of them, optional
        Fitted lenses whose readings of the classes kept travel beside those of the logit lens.
    flow : bool
        Whether `metrics.flow` of the classes kept travels, too: about as much as their readings. Where it is not defined,
        the snapshot says why.
    rows : sequence of int, optional
        Tokens whose attention weights and heads' readings travel; by default all of them up to 2.5 MB, else the one that
        the model answers from.
    known : Snapshot, optional
        Of the same trace with other classes: its top classes are taken over, not computed again.

    Returns
    -------
    Snapshot

    Raises
    ------
    ValueError
        For an image, class or payload that does not exist, a mask that does not fit the picture or its objects, or a lens of
        another model.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> capture(trace, payload="classes", classes=["fish", "boat"]).arrays["ranks"].shape  # K, S, T'
    (2, 33, 145)
    """
    trace = trace.image(image)
    if payload not in ("auto", "all", "classes", "increments"):
        raise ValueError(f"payload must be 'auto', 'all', 'classes' or 'increments', got {payload!r}")
    passes = {"classes": 2, "increments": 4}
    given = several_lenses(lenses)
    with torch.inference_mode(), full_precision(trace.output), progress_bar(100, "snapshot", "%") as bar:
        reader = Reader(trace, lambda share: bar.update(100 * share / passes[mode]))
        size = reader.n_classes * len(trace.increments) * reader.n_tokens * 4
        mode = cast("PayloadMode", payload if payload != "auto" else "all" if size <= ALL_LIMIT else "classes")
        asked = [] if classes is None else [class_index(trace.class_names, c) for c in items_of(classes)[0]]
        arrays, kept, extra, error = _read(reader, mode, list(dict.fromkeys(asked)), known)
        heads, attention = reader.attention(kept, rows)
        arrays |= heads | reader.received()
        arrays |= read_lenses(reader, given, kept, summary=mode != "all")
        flows, reason = flow_or_reason(reader, kept) if flow else ({}, "")
        arrays |= flows
        if given:
            extra["lenses"] = lens_metas(reader, given)
    names = [readable(str(name)) for name in trace.class_names]
    card = card_of(trace.model_name, trace.class_names)
    if answer := answer_meta(arrays["output_logits"], names, (card or {}).get("unsure")):
        extra["answer"] = answer
    caveats, unreachable = _caveats(trace)
    meta: SnapshotMeta = {
        "kind": "snapshot",
        "model": _model(trace, reader, reason, "" if card is None else described(card)),
        "tokens": _tokens(trace, reader),
        "classes": {"count": reader.n_classes, "names": names, "kept": kept, "all": mode == "all"},
        "objects": [],
        "caveats": caveats,
        "unreachable": unreachable,
        "intervention": None,
        **extra,
        "payload": {"mode": mode, "note": _payload_note(mode, kept, reader.n_classes)},
        "exactness": _exactness(error),
        **attention,
        "image": image_meta(arrays, trace, title),
    }
    if label is not None:
        meta["image"]["label"] = class_index(trace.class_names, label)
    if mask is not None:
        _add_mask(meta, arrays, mask, objects, trace.class_names)
    return Snapshot(meta, arrays)


def _read(
    reader: Reader, mode: PayloadMode, asked: list[int], known: Snapshot | None
) -> tuple[dict[str, Array], list[int], ExtraMeta, RoundingError | None]:
    """The readings of a payload, the classes kept, and of increments their scale and what float16 changes."""
    arrays: dict[str, Array] = {
        "output_logits": as_float(reader.trace.output[0]),
        "offset": as_float(reader.lens.offset),
        "sigma": as_float(reader.sigma()),
        "norms": reader.norms(),
    }
    extra: ExtraMeta = {}
    error: RoundingError | None = None
    if mode == "all":
        kept = list(range(reader.n_classes))
    else:
        arrays |= _known_summary(known) or dict(zip(SUMMARY, reader.summary(), strict=True))
        arrays["top_logits"] = fitting(arrays["top_logits"])
        kept = asked if mode == "classes" and asked else _classes_that_matter(arrays, asked, mode)
        arrays["ranks"] = reader.ranks(kept)
    arrays["raw"] = reader.raw(kept)
    if mode == "increments":
        increments, extra = reader.increments()
        arrays |= increments
        error = rounding_error(reader, arrays, extra["embedding_scale"])
    return arrays, kept, extra, error


def _known_summary(known: Snapshot | None) -> dict[str, Array]:
    """What a snapshot carries about all classes at every stream point; empty where it does not."""
    if known is None or "top" not in known.arrays or "points" in known.meta["payload"]:
        return {}
    return {name: known.arrays[name] for name in SUMMARY}


def _classes_that_matter(arrays: dict[str, Array], asked: Sequence[int], payload: str) -> list[int]:
    """Predicted and asked classes, then those that are most often on top over depth and tokens."""
    kept = list(dict.fromkeys([*asked, *np.argsort(-arrays["output_logits"], kind="stable")[:TOP].tolist()]))
    if payload == "classes":
        common = Counter(arrays["top"][:, :, 0].ravel().tolist())
        kept += [c for c, _ in common.most_common(TOP + len(kept)) if c not in kept][:TOP]
    return [int(c) for c in kept]


def _payload_note(payload: str, kept: Sequence[int], n_classes: int) -> str:
    if payload == "all":
        return f"All {n_classes} classes travel with this view: every class, block and token is live without a kernel."
    if payload == "classes":
        return f"{len(kept)} of {n_classes} classes travel with this view; the others are fetched from the kernel."
    return (
        f"All increments and the class embedding travel with this view in float16: every one of the {n_classes} classes "
        f"is live without a kernel; ranks are exact for {len(kept)} classes and approximate for the others."
    )


def _exactness(error: RoundingError | None) -> ExactnessMeta:
    if error is None:
        return {"logits": "exact", "ranks": "exact", "note": "float32 readings"}
    return {
        "logits": "approximate",
        "ranks": "approximate",
        "note": f"read from float16 increments: {error}",
        "error": asdict(error),
    }


def _caveats(trace: Trace) -> tuple[list[str], list[int]]:
    """What a reader must know, in words; and the stream points whose image tokens cannot reach the output."""
    caveats: list[str] = []
    unreachable: list[int] = []
    if not pools(trace.pooling) and trace.points.sequential:
        unreachable = list(trace.points.of_block(trace.n_blocks))
        read = " and ".join(trace.prefix[: 2 if trace.pooling == "distilled" else 1])
        caveats.append(f"The output is read from {read}: what the last block adds to the image tokens cannot reach it.")
    if trace.pooling == "norm_mean":
        caveats.append(
            "This model averages normalised tokens: before the last block, the pooled token is read with the final "
            "norm's scale."
        )
    return caveats, unreachable


def _model(trace: Trace, reader: Reader, flow_refused: str, description: str) -> ModelMeta:
    refused = reader.refused()
    if flow_refused:
        refused["flow_refused"] = flow_refused
    return {
        "name": readable(trace.model_name),
        "blocks": trace.n_blocks,
        "heads": trace.heads,
        "width": int(trace.increments[0].shape[-1]),
        "layout": trace.layout,
        "description": description,
        **refused,
    }


def _tokens(trace: Trace, reader: Reader) -> TokensMeta:
    kept = range(trace.n_tokens) if trace.kept_tokens is None else trace.kept_tokens
    return {
        "count": trace.n_tokens,
        "prefix": list(trace.prefix),
        "grid": list(trace.grid),
        "pooled": reader.pooled,
        "output": reader.output_token,
        "removed": [t for t in range(trace.n_tokens) if t not in kept],
    }


def _add_mask(
    meta: SnapshotMeta,
    arrays: dict[str, Array],
    mask: Array,
    objects: Sequence[int | str | None],
    names: Sequence[str],
) -> None:
    expected = (meta["image"]["height"], meta["image"]["width"])
    mask = np.asarray(mask)
    if mask.shape != expected:
        raise ValueError(
            f"mask must have the displayed picture's shape {expected}, got {mask.shape}; "
            "space.place_mask(mask) cuts and scales a mask of the picture's own size as the picture was"
        )
    mask = object_numbers(mask)
    numbers = sorted(set(mask.ravel().tolist()) - {0})
    indices = [None if c is None else class_index(names, c) for c in objects] or [None] * len(numbers)
    if numbers and numbers[-1] > len(indices):
        remedy = f"objects=[None] * {numbers[-1]} keeps them as they are"
        if not objects and len(numbers) == 1:
            remedy = f"for one object give mask == {numbers[-1]}; {remedy}"
        raise ValueError(
            f"a mask must hold 0 (context) and the numbers 1..{len(indices)} of its objects, the main one first, "
            f"this one holds {', '.join(map(str, numbers[:6]))}; {remedy}"
        )
    arrays["mask"] = mask
    meta["objects"] = [{"class": i, "name": "object" if i is None else names[i]} for i in indices]
