"""How objects introduce themselves: one line of text, and a small table in a notebook."""

from __future__ import annotations

import base64
import html
import inspect
import io
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from classspace_widgets.causal import Sweep
    from classspace_widgets.explain import PerturbationCurves, TokenImportance
    from classspace_widgets.images import Preprocessing
    from classspace_widgets.memories import ValueVectors
    from classspace_widgets.metrics import Contributions
    from classspace_widgets.space import ClassSpace
    from classspace_widgets.streaming import StreamReadings
    from classspace_widgets.trace import Trace

_POOLING = {
    "token": "{first}",
    "mean_norm": "the mean token",
    "norm_mean": "the mean of the tokens' readings",
    "distilled": "both prefix tokens",
}
LISTED = 8
"""Pictures of a batch that a trace shows."""
FEW = 5
"""Classes, places or vectors that other tables show."""


def short_repr(thing: Any) -> str:
    """A dataclass in one line: tensors by dtype and shape, long parts by their length."""
    parts = ", ".join(f"{f.name}={short(getattr(thing, f.name))}" for f in fields(thing) if f.repr)
    return f"{type(thing).__name__}({parts})"


def short(value: Any) -> str:
    """A value in a few words: tensors by dtype and shape, what is long by its length."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} [{', '.join(str(n) for n in shape)}]"
    if shape is not None and hasattr(value, "columns"):
        return f"table of {shape[0]} rows"
    if hasattr(value, "named_parameters"):
        return type(value).__name__
    if isinstance(value, dict) and value:
        inner = ", ".join(f"{k}: {short(v)}" for k, v in value.items())
        return f"{{{inner}}}" if len(inner) <= 120 else f"{{{len(value)} entries}}"
    if isinstance(value, tuple) and value and all(isinstance(row, tuple) and len(row) > 2 for row in value):
        return f"{type(value[0][0]).__name__} [{len(value)}, {len(value[0])}]"
    if isinstance(value, (list, tuple)) and value:
        inner = ", ".join(short(v) for v in value) + "," * (len(value) == 1)
        return f"({inner})" if len(inner) <= 60 else f"({short(value[0])}, ... {len(value)} in all)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def options_text(thing: Any) -> str:
    """An object by its options, as far as they differ from what they are by default."""
    given: dict[str, Any] = {}
    for kind in type(thing).__mro__:
        own = vars(kind).get("__init__")
        for name, option in inspect.signature(own).parameters.items() if inspect.isfunction(own) else ():
            value = getattr(thing, name, option.default)
            if option.kind is option.KEYWORD_ONLY and value != option.default:
                given.setdefault(name, value)
    return f"{type(thing).__name__}({', '.join(f'{name}={short(value)}' for name, value in given.items())})"


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
        ("pictures", _pictures(space.preprocessing)),
        ("runs on", f"{space.device}, {str(space.dtype).removeprefix('torch.')}"),
    ]


def _pictures(how: Preprocessing) -> str:
    """How pictures become input, in words."""

    def numbers(values: tuple[float, ...]) -> str:
        return " ".join(f"{value:.3g}" for value in (values[:1] if len(set(values)) == 1 else values))

    assumed = f" ({', '.join(how.assumed)} assumed)" if how.assumed else ""
    height, width = how.size
    return f"{height} x {width} pixels, crop {how.crop:g}, mean {numbers(how.mean)}, std {numbers(how.std)}{assumed}"


def trace_text(trace: Trace) -> str:
    """A trace in one line."""
    images = f"{trace.n_images} image{'s' * (trace.n_images != 1)}"
    names = ", ".join(trace.class_names[c] for c in trace.answers()[1][:3, 0].tolist())
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
    for i in range(min(trace.n_images, LISTED)):
        found = zip(shares[i].tolist(), classes[i].tolist(), strict=True)
        best = ", ".join(f"{trace.class_names[c]} {share:.1%}" for share, c in found)
        name = trace.image_names[i] if i < len(trace.image_names) else ""
        picture = _thumbnail(trace.pictures[i]) if trace.pictures is not None else ""
        rows.append((f"{picture} {html.escape(name or f'image {i}')}", html.escape(best)))
    more = f"<p>and {trace.n_images - LISTED} more</p>" if trace.n_images > LISTED else ""
    body = "".join(
        f"<tr><th style='text-align:left'>{a}</th><td style='text-align:left'>{b}</td></tr>" for a, b in rows
    )
    return f"<div><p>{html.escape(trace_text(trace))}</p><table>{body}</table>{more}</div>"


def importance_html(found: TokenImportance) -> str:
    """Importance as maps: a row for each of the first pictures, the classes side by side."""
    from classspace_widgets.filmstrip import map_row
    from classspace_widgets.still import data_uri

    rows = []
    for i, maps in enumerate(found.image_maps[:2, :FEW].float().cpu().numpy()):
        names = [_name(found.class_names, c) for c in found.classes[i, :FEW].tolist()]
        picture = None if found.pictures is None else found.pictures[i]
        words = html.escape(f"importance for {', '.join(names)}")
        row = data_uri(map_row(picture, list(maps), names, title=f"importance, method {found.method}"), quality=90)
        rows.append(f'<div><img src="{row}" alt="{words}"></div>')
    return f"<div>{''.join(rows)}<small>{html.escape(repr(found))}</small></div>"


def contributions_html(shares: Contributions) -> str:
    """Contributions to the first class at the first token of the first picture, by block, with their sum."""
    values = shares.values[0, :, 0, 0].tolist()
    size = 2 if shares.layout == "sequential" else 1
    rows: list[Sequence[str]] = [("embedding", f"{values[0]:+.3f}")]
    rows += [
        (f"block {n // size + 1}", *(f"{v:+.3f}" for v in values[n + 1 : n + 1 + size]))
        for n in range(0, len(values) - 1, size)
    ]
    rows += [("offset", f"{shares.offset[0].item():+.3f}"), ("total", f"{shares.total()[0, 0, 0].item():+.3f}")]
    name = _name(shares.class_names, shares.classes[0]) if shares.classes else "the first class"
    head = ("", "attention", "MLP") if size == 2 else ("", "block")
    title = f"Contributions ({shares.reading}) to the class logit of {name}: first picture, first token"
    return _table(title, rows, head, small=repr(shares))


def sweep_html(sweep: Sweep) -> str:
    """The largest effects of a sweep on each class."""
    place, rows = sweep.kind.removesuffix("s"), []
    for k, c in enumerate(sweep.classes[:FEW]):
        effect = sweep.effect[k].nan_to_num(0.0).cpu()
        for at in effect.abs().flatten().topk(min(FEW, effect.numel())).indices.tolist():
            block, column = divmod(at, effect.shape[1])
            where = f"block {sweep.blocks[block]}, {place} {sweep.places[column]}"
            rows.append((_name(sweep.class_names, c), where, f"{effect[block, column].item():+.3f}"))
    head = ("class", "place", f"effect on its {sweep.measure}")
    return _table(f"Largest effects of a sweep over {sweep.kind} ({sweep.mode})", rows, head, small=repr(sweep))


def curves_html(curves: PerturbationCurves) -> str:
    """Areas under perturbation curves, over all pictures."""
    better = {"negative": "higher is better", "positive": "lower is better"}
    rows = [
        (
            f"{order} ({better[order]})",
            *(f"{curves.area(order, m).mean().item():.3f}" for m in ("accuracy", "probability")),
        )
        for order in curves.correct
    ]
    count = len(next(iter(curves.correct.values())))
    title = f"Area under perturbation curves, mean of {count} picture{'s' * (count != 1)}"
    return _table(title, rows, ("order", "accuracy", "probability"), small=repr(curves))


def values_html(values: ValueVectors) -> str:
    """The value vectors that stand most for a class, with the best classes of each."""
    scores = values.scores
    best = scores.amax(dim=0).topk(min(FEW, scores.shape[1])).indices.tolist()
    top = scores[:, best].T.topk(min(3, scores.shape[0]))
    rows = []
    for j, found, classes in zip(best, top.values.tolist(), top.indices.tolist(), strict=True):
        listed = (f"{_name(values.class_names, c)} {v:.2f}" for v, c in zip(found, classes, strict=True))
        rows.append((f"value {j}", ", ".join(listed)))
    title = f"Strongest value vectors of the {values.sublayer} of block {values.block}, and their classes"
    return _table(title, rows, small=repr(values))


def readings_html(found: StreamReadings) -> str:
    """The residual stream of the first picture's first token: its best class, and the ranks of the classes read."""
    classes = found.classes[0, :FEW].tolist()
    rows = []
    for block in range(found.n_blocks + 1):
        point = found.point("residual", block)
        ranks = (str(rank) for rank in found.ranks[point, 0, 0, :FEW].tolist())
        where = f"block {block}" if block else "embedding"
        rows.append((where, _name(found.class_names, int(found.top_classes[point, 0, 0, 0])), *ranks))
    head = ("residual stream", "best class", *(f"rank of {_name(found.class_names, c)}" for c in classes))
    return _table("Readings of the first picture's first token", rows, head, small=repr(found))


def _name(names: Sequence[str], wanted: int) -> str:
    return names[wanted] if 0 <= wanted < len(names) else f"class {wanted}"


def _few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _table(title: str, rows: Iterable[Sequence[str]], head: Sequence[str] = (), *, small: str = "") -> str:
    left = "style='text-align:left'"

    def row(cells: Sequence[str], kinds: Sequence[str]) -> str:
        inner = (f"<{kind} {left}>{html.escape(cell)}</{kind}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(row(cells, ["th", *["td"] * (len(cells) - 1)]) for cells in rows)
    top = row(head, ["th"] * len(head)) if head else ""
    note = f"<small>{html.escape(small)}</small>" if small else ""
    return f"<div><b>{html.escape(title)}</b><table>{top}{body}</table>{note}</div>"


def _thumbnail(pixels: Any, size: int = 56) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="" style="display:inline;vertical-align:middle;margin:0">'
