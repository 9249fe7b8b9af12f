"""How a trace introduces itself: its pictures with the model's answers."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from classspace_widgets.certainty import answer_meta
from classspace_widgets.models.bundled import card_of

if TYPE_CHECKING:
    from classspace_widgets.certainty import AnswerMeta
    from classspace_widgets.trace.trace import Trace


LISTED = 8
"""Pictures of a batch that a trace shows."""


def trace_text(trace: Trace) -> str:
    """A trace in one line."""
    images = f"{trace.n_images} image{'s' * (trace.n_images != 1)}"
    names = ", ".join(
        trace.class_names[c] + " (unsure)" * bool(answer and answer["unsure"])
        for c, answer in zip(trace.answers()[1][:3, 0].tolist(), _answers(trace, 3), strict=True)
    )
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
    shares, classes = trace.answers(min(3, trace.n_classes))
    answers = _answers(trace, LISTED)
    for i in range(min(trace.n_images, LISTED)):
        found = zip(shares[i].tolist(), classes[i].tolist(), strict=True)
        best = ", ".join(f"{trace.class_names[c]} {share:.1%}" for share, c in found)
        answer = answers[i]
        best += f". {answer['text']}" if answer and answer["unsure"] else ""
        name = trace.image_names[i] if i < len(trace.image_names) else ""
        picture = _thumbnail(trace.pictures[i]) if trace.pictures is not None else ""
        rows.append((f"{picture} {html.escape(name or f'image {i}')}", html.escape(best)))
    more = f"<p>and {trace.n_images - LISTED} more</p>" if trace.n_images > LISTED else ""
    body = "".join(
        f"<tr><th style='text-align:left'>{a}</th><td style='text-align:left'>{b}</td></tr>" for a, b in rows
    )
    return f"<div><p>{html.escape(trace_text(trace))}</p><table>{body}</table>{more}</div>"


def _answers(trace: Trace, count: int) -> list[AnswerMeta | None]:
    """How sure the model is of its answers to the first few pictures."""
    card = card_of(trace.model_name, trace.class_names) or {}
    outputs = trace.output[:count].detach().float().cpu().numpy()
    return [answer_meta(output, trace.class_names, card.get("unsure")) for output in outputs]


def _thumbnail(pixels: Any, size: int = 56) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="" style="display:inline;vertical-align:middle;margin:0">'
