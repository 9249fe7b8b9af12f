"""How a class space and its readings introduce themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classspace_widgets.describe import FEW, few, name_of, table
from classspace_widgets.points import block_name

if TYPE_CHECKING:
    from classspace_widgets.images import Preprocessing
    from classspace_widgets.models import Adapter
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.space.streaming import StreamReadings


_POOLING = {
    "token": "{first}",
    "mean_norm": "the mean token",
    "norm_mean": "the mean of the tokens' readings",
    "distilled": "both prefix tokens",
    "pool": "all tokens, pooled by a module of the model",
}


def space_text(space: ClassSpace) -> str:
    """A class space in one line."""
    facts = dict(_space_facts(space))
    fitted = f"; {space.fitted.in_words()}" if space.fitted is not None else ""
    return f"ClassSpace({space.name}: {facts['blocks']}, {facts['tokens']}, {facts['classes']}; {facts['runs on']}{fitted})"


def space_html(space: ClassSpace) -> str:
    """A class space as a small table."""
    errors = ", ".join(f"{name} {value:.0e}" for name, value in space.identities.items())
    origin = [("taken from", space.origin)] if space.origin else []
    fitted = [("fitted", space.fitted.in_words())] if space.fitted is not None else []
    rows = [*_space_facts(space), *origin, *fitted, ("identities hold to", errors or "not checked")]
    return table(f"Class space of {space.name}", rows)


def _space_facts(space: ClassSpace) -> list[tuple[str, str]]:
    adapter = space.adapter
    rows, columns = adapter.grid
    prefix = ", ".join(adapter.prefix) or "no prefix token"
    read = _POOLING[adapter.pooling].format(first=adapter.prefix[0] if adapter.prefix else "the first token")
    parallel = "" if adapter.points.sequential else " (attention and MLP in parallel)"
    return [
        ("blocks", f"{len(adapter.blocks)} blocks of {adapter.heads} heads, width {adapter.width}{parallel}"),
        ("tokens", f"{prefix} and {rows} x {columns} patches"),
        ("classes", f"{space.n_classes} classes, {few(space.class_names)}"),
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


def readings_html(found: StreamReadings) -> str:
    """The residual stream of the first picture's first token: its best class, and the ranks of the classes read."""
    classes = found.classes[0, :FEW].tolist()
    rows = []
    for block in (0, *found.points.blocks):
        point = found.points.number("residual", block)
        ranks = (str(rank) for rank in found.ranks[point, 0, 0, :FEW].tolist())
        rows.append((block_name(block), name_of(found.class_names, int(found.top_classes[point, 0, 0, 0])), *ranks))
    head = ("residual stream", "best class", *(f"rank of {name_of(found.class_names, c)}" for c in classes))
    return table("Readings of the first picture's first token", rows, head, small=repr(found))


def one_class_text(adapter: Adapter, name: str) -> str:
    """What a model of one class is warned about, and the remedy."""
    remedy = "give class_embedding=[C, D] two rows or more"
    if adapter.own_output:
        bias = "" if adapter.bias is None else "class_bias=torch.cat([-model.head.bias, model.head.bias]) / 2, "
        remedy = (
            "of a head of one logit (yes or no) make two classes: ClassSpace(model, class_embedding="
            f"torch.cat([-model.head.weight, model.head.weight]) / 2, {bias}class_names=['no', 'yes'])"
        )
    return (
        f"{name} has one class: its rank is always 0, identifiability and accuracy are always 1, whatever the weights, and only "
        f"its logits say anything; {remedy}"
    )
