"""Causal tracing over depth: what every (block, head) or (block, token) does to the class logits of one picture.

A sweep runs one intervention at every place.  The variants of a block share what comes before it: the pass is taken up
at the block where the intervention acts, with many variants in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.causal.describe import sweep_html
from classspace_widgets.describe import short_repr
from classspace_widgets.interventions.resume import Resumable
from classspace_widgets.interventions.run import pixels_of
from classspace_widgets.interventions.tokens import Sizes
from classspace_widgets.interventions.variants import AblateOwnHead, HideOwnToken
from classspace_widgets.lookup import items_of, whole_number
from classspace_widgets.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.interventions.attention import Product
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace

__all__ = ["Cancelled", "Sweep", "head_steps", "sweep_heads", "sweep_tokens", "token_steps"]

MODES = ("remove", "patch", "knock out")
TOKENS_AT_ONCE = 4_000
"""Tokens in one batch of variants: enough to keep the cores busy, little enough to stay in cache and to cancel."""


class Cancelled(Exception):
    """The sweep was cancelled between two steps."""


@dataclass(frozen=True)
class Sweep:
    """Effects of one intervention at every place.

    Made by `sweep_heads` and `sweep_tokens`.

    Attributes
    ----------
    effect : Tensor [K, n blocks, n places], float32
        Reading of the class with the intervention minus without; NaN where a place was left out.
    baseline : Tensor [K]
        Readings without.
    classes, blocks, places : tuple of int
        Class indices; the blocks swept; heads 0..H-1 or tokens 0..T-1.
    kind, mode, measure : str
        ``"heads"`` or ``"tokens"``; the intervention; ``"logit"`` or ``"probability"``.
    class_names : tuple of str
        Names of all C classes.
    """

    __repr__ = short_repr
    _repr_html_ = sweep_html

    effect: Tensor
    baseline: Tensor
    classes: tuple[int, ...]
    blocks: tuple[int, ...]
    places: tuple[int, ...]
    kind: str
    mode: str
    measure: str
    class_names: tuple[str, ...] = field(default=(), repr=False)


Steps = Generator[float, None, Sweep]


def head_steps(
    space: ClassSpace,
    image: Any,
    classes: int | str | Sequence[int | str],
    *,
    mode: str = "zero",
    blocks: Sequence[int] | None = None,
    measure: str = "logit",
) -> Steps:
    """`sweep_heads` as a generator: yields the fraction done, returns the `Sweep`.

    For interfaces that must stay responsive between steps: `sweep_heads` is this, driven to its end.

    Parameters
    ----------
    space, image, classes, mode, blocks, measure
        As in `sweep_heads`.

    Yields
    ------
    float
        The fraction done, 0 to 1; the `Sweep` is the generator's return value.

    Raises
    ------
    ValueError
        For an unknown mode or measure, a class or block that does not exist, or more than one picture.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> steps = head_steps(ClassSpace.bundled(), gallery()[0].picture, 0, blocks=[8])
    >>> list(steps)
    [0.0, 1.0]
    """
    if mode not in ("zero", "mean"):
        raise ValueError(f"mode must be 'zero' or 'mean', got {mode!r}")
    start = _Start(space, image, classes, measure)
    heads = list(range(start.sizes.heads))
    rows = _numbers(blocks, "block", range(1, start.sizes.blocks + 1))

    def variants(block: int, chosen: Tensor) -> tuple[Tensor, dict[int, Product], Tensor | None]:
        x = start.run.inputs[block - 1].expand(len(chosen), -1, -1)
        return x, {block: AblateOwnHead(chosen, mode)}, None

    grid = yield from start.over(rows, heads, variants)
    return start.sweep(grid, rows, range(start.sizes.heads), "heads", mode)


def token_steps(
    space: ClassSpace,
    image: Any,
    classes: int | str | Sequence[int | str],
    *,
    mode: str = "knock out",
    source: Trace | None = None,
    tokens: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    window: int = 1,
    renormalise: bool = False,
    measure: str = "logit",
) -> Steps:
    """`sweep_tokens` as a generator: yields the fraction done, returns the `Sweep`.

    For interfaces that must stay responsive between steps: `sweep_tokens` is this, driven to its end.

    Parameters
    ----------
    space, image, classes, mode, source, tokens, blocks, window, renormalise, measure
        As in `sweep_tokens`.

    Yields
    ------
    float
        The fraction done, 0 to 1; the `Sweep` is the generator's return value.

    Raises
    ------
    ValueError
        For an unknown mode or measure, a class, token or block that does not exist, ``"patch"`` without a source, or more
        than one picture.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> steps = token_steps(ClassSpace.bundled(), gallery()[0].picture, 0, blocks=[8], tokens=[1, 2])
    >>> list(steps)
    [0.0, 1.0]
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if (mode == "patch") != (source is not None):
        raise ValueError("mode='patch' needs a source (the Trace of another picture), other modes take none")
    if source is not None and getattr(source, "n_images", 0) != 1:
        raise TypeError("source must be the Trace of one other picture")
    if mode == "knock out" and window < 1:
        raise ValueError(f"window must be at least 1 block, got {window}")
    start = _Start(space, image, classes, measure)
    sizes, run = start.sizes, start.run
    rows = _numbers(blocks, "block", range(sizes.blocks) if mode == "patch" else range(1, sizes.blocks + 1))
    every = sizes.image_tokens if mode == "remove" else range(sizes.tokens)
    places = list(every) if tokens is None else _numbers(tokens, "token", range(sizes.tokens))
    if min(places) < every[0]:
        raise ValueError(f"prefix tokens cannot be removed, image tokens start at {sizes.prefix}")
    everything = torch.arange(sizes.tokens, device=run.output.device)

    def variants(block: int, chosen: Tensor) -> tuple[Tensor, dict[int, Product], Tensor | None]:
        count = torch.arange(len(chosen), device=chosen.device)
        if mode == "patch":
            assert source is not None
            x = run.inputs[block].repeat(len(chosen), 1, 1)
            x[count, chosen] = source.stream("residual", block)[0, chosen].to(x)
            return x, {}, None
        x = run.inputs[block - 1].expand(len(chosen), -1, -1)
        if mode == "remove":
            kept = everything.expand(len(chosen), -1)[everything != chosen[:, None]].view(len(chosen), -1)
            return run.inputs[block - 1][0][kept], {}, kept
        cut = HideOwnToken(chosen, renormalise)
        return x, dict.fromkeys(range(block, min(block + window, sizes.blocks + 1)), cut), None

    grid = yield from start.over(rows, places, variants, first=1 if mode == "patch" else 0)
    full = grid.new_full((*grid.shape[:2], sizes.tokens), float("nan"))
    full[:, :, places] = grid
    return start.sweep(full, rows, range(sizes.tokens), "tokens", mode)


def sweep_heads(
    space: ClassSpace,
    image: Any,
    classes: int | str | Sequence[int | str],
    *,
    mode: str = "zero",
    blocks: Sequence[int] | None = None,
    measure: str = "logit",
    progress: bool | Callable[[float], None] = True,
    cancelled: Callable[[], bool] | None = None,
) -> Sweep:
    """Effect of ablating every attention head of every block on class logits.

    Parameters
    ----------
    space : ClassSpace
    image : Any
        One picture, as `ClassSpace.trace` takes it, or a `Trace` of one.
    classes : class, or K classes
        The classes to read, by index or name.
    mode : str
        ``"zero"``, or ``"mean"`` over the picture's tokens.
    blocks : sequence of int, optional
    measure : str
        ``"logit"`` or ``"probability"``.
    progress : bool or callable
        Show a progress bar after a second; or what to call with the fraction done instead.
    cancelled : callable, optional
        Asked between steps; when it says True, `Cancelled` is raised.

    Returns
    -------
    Sweep
        ``effect`` ``[K, n blocks, H]``.

    Raises
    ------
    ValueError
        For an unknown mode or measure, a class or block that does not exist, or more than one picture.
    Cancelled
        If ``cancelled`` said so.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> space, scene = ClassSpace.bundled(), gallery()[0]
    >>> swept = sweep_heads(space, scene.picture, space.class_index("fish"))
    >>> swept.effect.shape  # K classes, blocks, heads
    torch.Size([1, 8, 4])
    """
    steps = head_steps(space, image, classes, mode=mode, blocks=blocks, measure=measure)
    return _drive(steps, progress, cancelled)


def sweep_tokens(
    space: ClassSpace,
    image: Any,
    classes: int | str | Sequence[int | str],
    *,
    mode: str = "knock out",
    source: Trace | None = None,
    tokens: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    window: int = 1,
    renormalise: bool = False,
    measure: str = "logit",
    progress: bool | Callable[[float], None] = True,
    cancelled: Callable[[], bool] | None = None,
) -> Sweep:
    """Effect of an intervention at every token and block on class logits.

    Parameters
    ----------
    space, image, classes
        As in `sweep_heads`.
    mode : str
        ``"knock out"``: at ``window`` blocks from l on, no other token may read this one (after the softmax, or
        with ``renormalise`` before it).  ``"remove"``: the token is absent from block l on (image tokens only).
        ``"patch"``: its residual stream after block l (0: the embedding; at most L - 1) is that of ``source``.
    source : Trace, optional
        Trace of one other picture.
    tokens, blocks : sequence of int, optional
        By default all.
    window : int
        Blocks that are cut, from l on.
    renormalise : bool
        Cut before the softmax, so that the other weights grow.
    measure, progress, cancelled
        As in `sweep_heads`.

    Returns
    -------
    Sweep
        ``effect`` ``[K, n blocks, T]``, NaN at tokens that were left out.

    Raises
    ------
    ValueError
        For an unknown mode or measure, a class, token or block that does not exist, ``"patch"`` without a source, or more
        than one picture.
    Cancelled
        If ``cancelled`` said so.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> fish, boat = (scene.picture for scene in gallery()[0:5:4])
    >>> space = ClassSpace.bundled()
    >>> swept = sweep_tokens(space, fish, [0], mode="patch", source=space.trace(boat), tokens=[0], blocks=[0, 7])
    >>> swept.effect.shape, int(swept.effect.isnan().sum())  # only [CLS] was patched
    (torch.Size([1, 2, 145]), 288)
    """
    steps = token_steps(
        space,
        image,
        classes,
        mode=mode,
        source=source,
        tokens=tokens,
        blocks=blocks,
        window=window,
        renormalise=renormalise,
        measure=measure,
    )
    return _drive(steps, progress, cancelled)


def _drive(steps: Steps, progress: bool | Callable[[float], None], cancelled: Callable[[], bool] | None) -> Sweep:
    with progress_bar(100, "sweep", "%", show=progress is True) as bar:
        while True:
            try:
                fraction = next(steps)
            except StopIteration as end:
                result: Sweep = end.value
                return result
            bar.to(int(100 * fraction))
            if callable(progress):
                progress(fraction)
            if cancelled is not None and cancelled():
                steps.close()
                raise Cancelled(f"cancelled at {fraction:.0%}")


def _numbers(chosen: Any, what: str, known: range) -> list[int]:
    """Block or token numbers among those that there are; None: all."""
    if chosen is None:
        return list(known)
    numbers = [whole_number(n, what, known[0], known[-1]) for n in items_of(chosen)[0]]
    if not numbers:
        raise ValueError(f"{what}s is empty: choose at least one, or None for all")
    return numbers


class _Start:
    """The pass that all variants start from, and the loop over places."""

    def __init__(self, space: ClassSpace, image: Any, classes: int | str | Sequence[int | str], measure: str) -> None:
        if measure not in ("logit", "probability"):
            raise ValueError(f"measure must be 'logit' or 'probability', got {measure!r}")
        if not hasattr(space, "adapter"):
            raise TypeError(f"a sweep takes a ClassSpace, then a picture or its Trace, got {type(space).__name__}")
        self.sizes = Sizes.of(space.adapter)
        self.measure = measure
        self.class_names = tuple(space.class_names)
        self.classes = tuple(space.class_index(c) for c in items_of(classes)[0])
        if not self.classes:
            raise ValueError("classes is empty: choose at least one")
        with pixels_of(space, image) as pixels:
            if pixels.shape[0] != 1:
                raise ValueError(f"a sweep is over one picture, got a batch of {pixels.shape[0]}")
            self.run = Resumable.record(space.adapter, pixels)
        self.baseline = self.read(self.run.output)[0]

    def read(self, logits: Tensor) -> Tensor:
        """Readings ``[V, K]`` of the classes."""
        logits = logits.float()
        return (logits.softmax(dim=-1) if self.measure == "probability" else logits)[:, list(self.classes)]

    def over(
        self,
        rows: Sequence[int],
        places: Sequence[int],
        variants: Callable[[int, Tensor], tuple[Tensor, dict[int, Product], Tensor | None]],
        *,
        first: int = 0,
    ) -> Generator[float, None, Tensor]:
        """Effects ``[K, n blocks, n places]``, one batch of places at a time."""
        grid = self.baseline.new_zeros(len(self.classes), len(rows), len(places))
        size = max(1, TOKENS_AT_ONCE // self.sizes.tokens)
        # Early blocks cost more, because all later ones follow.
        costs = [self.sizes.blocks + 1 - row for row in rows]
        total, done = sum(costs) * len(places), 0
        yield 0.0
        for i, row in enumerate(rows):
            for begin in range(0, len(places), size):
                chosen = torch.tensor(places[begin : begin + size], device=self.run.output.device)
                with torch.inference_mode():
                    x, products, kept = variants(row, chosen)
                    logits = self.run.run(x, row + first, kept=kept, products=products)
                grid[:, i, begin : begin + size] = (self.read(logits) - self.baseline).T
                done += costs[i] * len(chosen)
                yield done / total
        return grid

    def sweep(self, grid: Tensor, rows: Sequence[int], places: Sequence[int], kind: str, mode: str) -> Sweep:
        """The result, off inference mode."""
        return Sweep(
            grid.clone(),
            self.baseline.clone(),
            self.classes,
            tuple(rows),
            tuple(places),
            kind,
            mode,
            self.measure,
            self.class_names,
        )
