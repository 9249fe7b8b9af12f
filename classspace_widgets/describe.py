"""How objects introduce themselves: one line of text, and a small table in a notebook."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from classspace_widgets.space import ClassSpace
    from classspace_widgets.trace import Trace

_POOLING = {
    "token": "{first}",
    "mean_norm": "the mean token",
    "norm_mean": "the mean of the tokens' readings",
    "distilled": "both prefix tokens",
}
LISTED = 8
"""Pictures of a batch that a trace shows."""


def short_repr(thing: Any) -> str:
    """A dataclass in one line: tensors by dtype and shape, long parts by their length."""
    parts = ", ".join(f"{f.name}={_short(getattr(thing, f.name))}" for f in fields(thing) if f.repr)
    return f"{type(thing).__name__}({parts})"


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} [{', '.join(str(n) for n in shape)}]"
    if shape is not None and hasattr(value, "columns"):
        return f"table of {shape[0]} rows"
    if hasattr(value, "named_parameters"):
        return type(value).__name__
    if isinstance(value, dict) and value:
        inner = ", ".join(f"{k}: {_short(v)}" for k, v in value.items())
        return f"{{{inner}}}" if len(inner) <= 120 else f"{{{len(value)} entries}}"
    if isinstance(value, (list, tuple)) and value:
        inner = ", ".join(_short(v) for v in value)
        return f"({inner})" if len(inner) <= 60 else f"({_short(value[0])}, ... {len(value)} in all)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def space_text(space: ClassSpace) -> str:
    """A class space in one line."""
    facts = dict(_space_facts(space))
    return f"ClassSpace({space.name}: {facts['blocks']}, {facts['tokens']}, {facts['classes']}; {facts['runs on']})"


def space_html(space: ClassSpace) -> str:
    """A class space as a small table."""
    errors = ", ".join(f"{name} {value:.0e}" for name, value in space.identities.items())
    rows = [*_space_facts(space), ("identities hold to", errors or "not checked")]
    return _table(f"Class space of {space.name}", rows)


def _space_facts(space: ClassSpace) -> list[tuple[str, str]]:
    adapter = space.adapter
    rows, columns = adapter.grid
    prefix = ", ".join(adapter.prefix) or "no prefix token"
    read = _POOLING[adapter.pooling].format(first=adapter.prefix[0] if adapter.prefix else "the first token")
    parallel = "" if adapter.layout == "sequential" else " (attention and MLP in parallel)"
    return [
        ("blocks", f"{len(adapter.blocks)} blocks of {adapter.heads} heads, width {adapter.width}{parallel}"),
        ("tokens", f"{prefix} and {rows} x {columns} patches"),
        ("classes", f"{space.n_classes} classes, {_few(space.class_names)}"),
        ("output is read from", read if adapter.own_output else "a class embedding of your own"),
        ("runs on", f"{space.device}, {str(space.dtype).removeprefix('torch.')}"),
    ]


def trace_text(trace: Trace) -> str:
    """A trace in one line."""
    images = f"{trace.n_images} image{'s' * (trace.n_images != 1)}"
    names = ", ".join(_answers(trace, i)[0][0] for i in range(min(trace.n_images, 3)))
    kept = [
        f"{what} of {len(held)} block{'s' * (len(held) != 1)}"
        for what, held in (
            ("attention", trace.attention_weights),
            ("heads", trace.head_inputs),
            ("keys", trace.mlp_keys),
        )
        if held
    ]
    return (
        f"Trace({trace.model_name or 'model'}: {images}, {trace.n_blocks} blocks, {trace.n_tokens} tokens, "
        f"{trace.n_classes} classes; predicted {names}{', ...' * (trace.n_images > 3)}"
        f"{'; kept ' + ' and '.join(kept) if kept else ''})"
    )


def trace_html(trace: Trace) -> str:
    """A trace as a table: each picture with the model's best classes."""
    rows = []
    for i in range(min(trace.n_images, LISTED)):
        best = ", ".join(f"{name} {share:.1%}" for name, share in _answers(trace, i))
        name = trace.image_names[i] if i < len(trace.image_names) else ""
        picture = _thumbnail(trace.pictures[i]) if trace.pictures is not None else ""
        rows.append((f"{picture} {html.escape(name or f'image {i}')}", html.escape(best)))
    more = f"<p>and {trace.n_images - LISTED} more</p>" if trace.n_images > LISTED else ""
    body = "".join(
        f"<tr><th style='text-align:left'>{a}</th><td style='text-align:left'>{b}</td></tr>" for a, b in rows
    )
    return f"<div><p>{html.escape(trace_text(trace))}</p><table>{body}</table>{more}</div>"


def _answers(trace: Trace, image: int, count: int = 3) -> list[tuple[str, float]]:
    shares = trace.output[image].float().softmax(dim=-1)
    best = shares.topk(min(count, trace.n_classes))
    return [(trace.class_names[c], v) for v, c in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def _few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(a)}</th><td style='text-align:left'>{html.escape(b)}</td></tr>"
        for a, b in rows
    )
    return f"<div><b>{html.escape(title)}</b><table>{body}</table></div>"


def _thumbnail(pixels: Any, size: int = 56) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="" style="display:inline;vertical-align:middle;margin:0">'
