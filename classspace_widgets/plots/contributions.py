"""Attention against MLP over depth, and every attention head, in the colours of the live views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import BasicTicker, ColorBar, ColumnDataSource, FixedTicker, HoverTool, LinearColorMapper, Range1d

from classspace_widgets.plots.style import FIXED_COLOURS, INK, SIGNED, styled_figure
from classspace_widgets.points import block_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from classspace_widgets.metrics.contributions import Contributions

_QUANTITY = {
    "direct": "direct contribution",
    "step": "change of the logit",
    "paper": "logit, less the input's",
}


def plot_contributions(
    contributions: Contributions,
    *,
    class_number: int = 0,
    image: int = 0,
    token: int = 0,
    title: str = "",
    width: int = 640,
    height: int = 280,
) -> Any:
    """Contributions of the embedding, every attention, every MLP and the bias to a class, as bars over the blocks.

    Parameters
    ----------
    contributions : Contributions
        From `metrics.contributions`, ``values: [K, N, B, T]``.
    class_number, image, token : int
        Which of the K classes, of the B images and of the T tokens.
    title : str
    width, height : int
        In pixels.

    Returns
    -------
    bokeh figure

    Raises
    ------
    IndexError
        If there is no such class, image or token.

    Examples
    --------
    >>> from classspace_widgets.metrics import contributions
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> plot_contributions(contributions(trace, "fish")).yaxis[0].axis_label
    'direct contribution'
    """
    sizes = {
        "class_number": contributions.values.shape[0],
        "image": contributions.values.shape[2],
        "token": contributions.values.shape[3],
    }
    for (name, size), index in zip(sizes.items(), (class_number, image, token), strict=True):
        if not 0 <= index < size:
            raise IndexError(f"{name} must be in 0..{size - 1}, got {index}")
    values = contributions.values[class_number, :, image, token].double().cpu().numpy()
    offset = float(contributions.offset[class_number])
    points = contributions.points
    parallel, depth = not points.sequential, points.n_blocks
    fig = styled_figure(title, legend="above", width=width, height=height, x_range=Range1d(-0.6, depth + 1.6))
    blocks = np.arange(1.0, depth + 1)

    def values_of(sublayer: str) -> Any:
        return values[[points.increment(sublayer, block) for block in points.blocks]]

    bars: dict[str, tuple[Any, Any, str]]
    if parallel:
        bars = {"attention and MLP": (blocks, values_of("block"), FIXED_COLOURS["attention"])}
    else:
        bars = {
            "attention": (blocks - 0.2, values_of("attention"), FIXED_COLOURS["attention"]),
            "MLP": (blocks + 0.2, values_of("mlp"), FIXED_COLOURS["mlp"]),
        }
    ends = (np.array([0, depth + 1]), np.array([values[0], offset]), INK)
    bars["embedding, bias"] = ends if contributions.reading == "direct" else (ends[0][:1], ends[1][:1], INK)
    for name, (places, heights, colour) in bars.items():
        labels = [_bar_label(round(p), depth) for p in places]
        source = ColumnDataSource({"x": places, "value": heights, "at": labels, "name": [name] * len(labels)})
        drawn = fig.vbar("x", 0.72 if parallel else 0.38, "value", source=source, color=colour, legend_label=name)
        fig.add_tools(HoverTool(renderers=[drawn], tooltips=[("", "@at, @name"), ("", "@value{+0.000}")]))
    last = depth + (contributions.reading == "direct")
    fig.xaxis.ticker = FixedTicker(ticks=list(range(last + 1)))
    fig.xaxis.major_label_overrides = {0: "emb.", depth + 1: "bias"}
    fig.xaxis.axis_label = "block"
    fig.yaxis.axis_label = _QUANTITY[contributions.reading]
    fig.xgrid.visible = False
    fig.legend.orientation, fig.legend.spacing = "horizontal", 16
    fig.legend.click_policy = "hide"
    return fig


def plot_heads(
    effects: ArrayLike, *, title: str = "", quantity: str = "contribution", width: int = 640, height: int | None = None
) -> Any:
    """A number for every attention head of every block: red raises the class, blue lowers it.

    Parameters
    ----------
    effects : array [L, H], or DataFrame
        Blocks by heads, such as ``effect[0]`` of `causal.sweep_heads`; or the rows of one class from `studies.head_table`:
        tooltips then show the intervals, and heads whose interval contains 0 are faint.
    title, quantity : str
        Title of the figure, and the name of the number in its tooltips.
    width, height : int
        In pixels; by default the height fits the heads.

    Returns
    -------
    bokeh figure

    Raises
    ------
    ValueError
        If ``effects`` does not have two dimensions, or is a table of several classes.

    Examples
    --------
    >>> from classspace_widgets.causal.sweeps import sweep_heads
    >>> from classspace_widgets.scenes import gallery
    >>> swept = sweep_heads(ClassSpace.bundled(), gallery()[0].picture, "fish")
    >>> plot_heads(swept.effect[0], title="without the head").title.text
    'without the head'
    """
    table: Any = effects if {"block", "head", "value"} <= set(getattr(effects, "columns", ())) else None
    values = _by_head(table, "value") if table is not None else np.asarray(effects, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"effects must have shape [L blocks, H heads], got {list(values.shape)}")
    depth, heads = values.shape
    block, head = (n.ravel() for n in np.indices(values.shape))
    columns = {"block": block + 1, "head": head, "value": values.ravel(), "alpha": np.ones(values.size)}
    if table is not None:
        columns["low"], columns["high"] = (_by_head(table, name).ravel() for name in ("low", "high"))
        columns["alpha"] = np.where((columns["low"] <= 0) & (columns["high"] >= 0), 0.3, 1.0)
    source = ColumnDataSource(columns)
    fig = styled_figure(
        title,
        width=width,
        height=height or 90 + 26 * max(heads, 3),
        x_range=Range1d(0.5, depth + 0.5),
        y_range=Range1d(heads - 0.5, -0.5),
    )
    limit = float(np.nanmax(np.abs(values))) or 1.0
    colour = LinearColorMapper(palette=SIGNED, low=-limit, high=limit, nan_color="rgba(0, 0, 0, 0)")
    fill = {"field": "value", "transform": colour}
    cells = fig.rect("block", "head", 0.94, 0.9, source=source, fill_color=fill, fill_alpha="alpha", line_color=None)
    tips = [("", "block @block, head @head"), (quantity, "@value{+0.000}")]
    if table is not None:
        tips.append(("interval", "@low{+0.000} to @high{+0.000}"))
    fig.add_tools(HoverTool(renderers=[cells], tooltips=tips))
    bar = ColorBar(color_mapper=colour, width=8, padding=6, background_fill_alpha=0, major_label_text_color=INK)
    bar.ticker = BasicTicker(desired_num_ticks=3)
    fig.add_layout(bar, "right")
    fig.grid.visible = False
    fig.xaxis.ticker = FixedTicker(ticks=list(range(1, depth + 1)))
    fig.yaxis.ticker = FixedTicker(ticks=list(range(heads)))
    fig.xaxis.axis_label, fig.yaxis.axis_label = "block", "head"
    return fig


def _by_head(table: Any, column: str) -> Any:
    """One column of a table of heads as an array by block and head, [L, H]."""
    classes = table["class_name"].unique().tolist() if "class_name" in table.columns else []
    if len(classes) > 1:
        raise ValueError(
            f"a figure shows the heads of one class, this table has {len(classes)}; "
            f"choose one: table[table['class_name'] == {classes[0]!r}]"
        )
    return table.pivot(index="block", columns="head", values=column).sort_index().to_numpy(float)


def _bar_label(number: int, depth: int) -> str:
    return "bias" if number > depth else block_name(number)
