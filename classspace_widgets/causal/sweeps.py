"""Causal tracing over depth: the effect of every (block, head) or (block, token) on the class logits of one picture.

A sweep applies one intervention at every place. The pass is run once without an intervention; for every block it is then
resumed at that block, with one batch element for each head or token, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.causal.describe import sweep_html
from classspace_widgets.causal.modes import KnockOut, Patch, as_mode
from classspace_widgets.describe import short_repr
from classspace_widgets.interventions.per_element import AblateHeads, HideTokens
from classspace_widgets.interventions.resume import Resumable
from classspace_widgets.interventions.run import pixels_of
from classspace_widgets.interventions.tokens import Sizes
from classspace_widgets.lookup import items_of, whole_number
from classspace_widgets.progress import progress_bar
from classspace_widgets.space.space import ClassSpace
from classspace_widgets.trace import Trace

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.interventions.attention import Product

__all__ = ["Cancelled", "Sweep", "head_steps", "sweep_heads", "sweep_tokens", "token_steps"]

TOKENS_AT_ONCE = 4_000
"""Tokens in one batch: on CPUs large enough to keep the cores busy, small enough for their caches and to cancel quickly."""


class Cancelled(Exception):
    """The sweep was cancelled between two steps."""


@dataclass(frozen=True)
class Sweep:
    """Effects of one intervention at every place.

    Made by `sweep_heads` and `sweep_tokens`.

    Attributes
    ----------
    effect : Tensor [K, n blocks, n places], float32
        Reading of the class with the intervention minus without; NaN at places that were not swept.
    baseline : Tensor [K]
        Readings without the intervention.
    classes, blocks, places : tuple of int
        Class indices; the swept blocks; heads 0..H-1 or tokens 0..T-1.
    kind, mode, measure : str
        ``"heads"`` or ``"tokens"``; the intervention; ``"logit"`` or ``"probability"``.
    class_names : tuple of str
        Names of all C classes.
    clean : Tensor [K] or None
        Readings of the clean picture, where states of it were patched into the corrupt one.
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
    clean: Tensor | None = None

    @property
    def restored(self) -> Tensor:
        """Share of the difference that a patch restores, ``(patched - corrupt) / (clean - corrupt)``, ``[K, n blocks, T]``.

        0 where it changes nothing, 1 where it brings the clean reading back; NaN for a class that both pictures read alike.
        """
        if self.clean is None:
            raise ValueError("this sweep has no clean picture: sweep_tokens(space, classes=..., clean=, corrupt=)")
        gap = self.clean - self.baseline
        return self.effect / torch.where(gap == 0, torch.nan, gap)[:, None, None]


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

    For interfaces that must respond between steps; `sweep_heads` runs it to its end.

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

    def resume(block: int, chosen: Tensor) -> tuple[Tensor, dict[int, Product], Tensor | None]:
        x = start.run.inputs[block - 1].expand(len(chosen), -1, -1)
        return x, {block: AblateHeads(chosen, mode)}, None

    grid = yield from start.over(rows, heads, resume)
    return start.sweep(grid, rows, range(start.sizes.heads), "heads", mode)


def token_steps(
    space: ClassSpace,
    image: Any = None,
    classes: int | str | Sequence[int | str] = (),
    *,
    mode: str | KnockOut | Patch | None = None,
    tokens: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    measure: str = "logit",
    clean: Any = None,
    corrupt: Any = None,
) -> Steps:
    """`sweep_tokens` as a generator: yields the fraction done, returns the `Sweep`.

    For interfaces that must respond between steps; `sweep_tokens` runs it to its end.

    Parameters
    ----------
    space, image, classes, mode, tokens, blocks, measure, clean, corrupt
        As in `sweep_tokens`.

    Yields
    ------
    float
        The fraction done, 0 to 1; the `Sweep` is the generator's return value.

    Raises
    ------
    ValueError
        For an unknown mode or measure, a class, token or block that does not exist, or more than one picture.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> steps = token_steps(ClassSpace.bundled(), gallery()[0].picture, 0, blocks=[8], tokens=[1, 2])
    >>> list(steps)
    [0.0, 1.0]
    """
    if clean is not None or corrupt is not None:
        image, mode = _pair(space, image, mode, clean, corrupt)
    elif image is None:
        raise ValueError("a sweep needs a picture, or two: clean= and corrupt=")
    how = as_mode("knock out" if mode is None else mode)
    name = "patch" if isinstance(how, Patch) else "knock out" if how is not None else "remove"
    start = _Start(space, image, classes, measure)
    sizes, run = start.sizes, start.run
    rows = _numbers(blocks, "block", range(sizes.blocks) if name == "patch" else range(1, sizes.blocks + 1))
    allowed = sizes.image_tokens if name == "remove" else range(sizes.tokens)
    places = list(allowed) if tokens is None else _numbers(tokens, "token", range(sizes.tokens))
    if min(places) < allowed[0]:
        raise ValueError(f"prefix tokens cannot be removed, image tokens start at {sizes.prefix}")
    others = torch.arange(sizes.tokens - 1, device=run.output.device)

    def resume(block: int, chosen: Tensor) -> tuple[Tensor, dict[int, Product], Tensor | None]:
        if isinstance(how, Patch):
            x = run.inputs[block].repeat(len(chosen), 1, 1)
            element = torch.arange(len(chosen), device=chosen.device)
            x[element, chosen] = how.source.stream("residual", block)[0, chosen].to(x)
            return x, {}, None
        if how is None:
            kept = others + (others >= chosen[:, None])  # from its number on, each is that of the next token
            return run.inputs[block - 1][0][kept], {}, kept
        x = run.inputs[block - 1].expand(len(chosen), -1, -1)
        hidden = HideTokens(chosen, how.renormalise)
        return x, dict.fromkeys(range(block, min(block + how.window, sizes.blocks + 1)), hidden), None

    grid = yield from start.over(rows, places, resume, first=1 if name == "patch" else 0)
    full = grid.new_full((*grid.shape[:2], sizes.tokens), float("nan"))
    full[:, :, places] = grid
    swept = start.sweep(full, rows, range(sizes.tokens), "tokens", name)
    if clean is None:
        return swept
    assert isinstance(how, Patch)
    return replace(swept, clean=start.read(how.source.output)[0].clone())


def _pair(space: ClassSpace, image: Any, mode: Any, clean: Any, corrupt: Any) -> tuple[Any, Patch]:
    """The picture that is patched, and the patch with the states of the other one."""
    if clean is None or corrupt is None:
        raise ValueError(f"clean= and corrupt= belong together, got only {'corrupt' if clean is None else 'clean'}=")
    if image is not None:
        raise ValueError("give a picture to sweep over, or clean= and corrupt=, not both")
    if mode is not None:
        raise ValueError(
            f"with clean= and corrupt=, states of the clean picture are patched in; leave mode={mode!r} out"
        )
    if not isinstance(clean, Trace):
        clean = space.trace(clean)
    expected = Sizes.of(space.adapter)
    if (clean.n_blocks, clean.n_tokens) != (expected.blocks, expected.tokens):
        raise ValueError(
            f"clean must have {expected.blocks} blocks and {expected.tokens} tokens like the model, got {clean.n_blocks} and "
            f"{clean.n_tokens}"
        )
    return corrupt, Patch(clean)


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
        One picture, as in `ClassSpace.trace`, or a `Trace` of one.
    classes : class, or K classes
        The classes to read, by index or name.
    mode : str
        ``"zero"``, or ``"mean"`` over the picture's tokens.
    blocks : sequence of int, optional
    measure : str
        ``"logit"`` or ``"probability"``.
    progress : bool or callable
        Show a progress bar after a second; or a function that is called with the fraction done.
    cancelled : callable, optional
        Called between steps; if it returns True, `Cancelled` is raised.

    Returns
    -------
    Sweep
        ``effect`` ``[K, n blocks, H]``.

    Raises
    ------
    ValueError
        For an unknown mode or measure, a class or block that does not exist, or more than one picture.
    Cancelled
        If ``cancelled`` returned True.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> space, scene = ClassSpace.bundled(), gallery()[0]
    >>> swept = sweep_heads(space, scene.picture, space.class_index("fish"))
    >>> swept.effect.shape  # K classes, blocks, heads
    torch.Size([1, 8, 4])
    """
    steps = head_steps(space, image, classes, mode=mode, blocks=blocks, measure=measure)
    return _run_steps(steps, progress, cancelled)


def sweep_tokens(
    space: ClassSpace,
    image: Any = None,
    classes: int | str | Sequence[int | str] = (),
    *,
    mode: str | KnockOut | Patch | None = None,
    tokens: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    measure: str = "logit",
    clean: Any = None,
    corrupt: Any = None,
    progress: bool | Callable[[float], None] = True,
    cancelled: Callable[[], bool] | None = None,
) -> Sweep:
    """Effect of an intervention at every token and block on class logits.

    Parameters
    ----------
    space, image, classes
        As in `sweep_heads`.
    mode : str, KnockOut or Patch
        ``"knock out"`` (the default): at block l no other token may read this one; ``KnockOut(window=3, renormalise=True)`` sets its
        options. ``"remove"``: the token is absent from block l on (image tokens only). ``Patch(trace)``: its residual
        stream after block l (0: the embedding; at most L - 1) is that of the trace of another picture.
    tokens, blocks : sequence of int, optional
        By default all.
    measure : str
        As in `sweep_heads`.
    clean, corrupt : picture or Trace, optional
        Instead of ``image`` and ``mode``: the states of the clean picture are patched into the pass of the corrupt one, and
        ``restored`` of the result is the share of the difference that each brings back.
    progress, cancelled
        As in `sweep_heads`.

    Returns
    -------
    Sweep
        ``effect`` ``[K, n blocks, T]``, NaN at tokens that were not swept.

    Raises
    ------
    ValueError
        For an unknown mode or measure, a class, token or block that does not exist, or more than one picture.
    Cancelled
        If ``cancelled`` returned True.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> fish, boat = (scene.picture for scene in gallery()[0:5:4])
    >>> space = ClassSpace.bundled()
    >>> swept = sweep_tokens(space, fish, [0], mode=Patch(space.trace(boat)), tokens=[0], blocks=[0, 7])
    >>> swept.effect.shape, int(swept.effect.isnan().sum())  # only [CLS] was patched
    (torch.Size([1, 2, 145]), 288)
    >>> swept = sweep_tokens(space, classes="fish", clean=fish, corrupt=boat, tokens=[0], blocks=[7])
    >>> bool(swept.restored[0, 0, 0] > 0.8)  # late in the model, [CLS] alone carries the answer
    True
    """
    steps = token_steps(
        space, image, classes, mode=mode, tokens=tokens, blocks=blocks, measure=measure, clean=clean, corrupt=corrupt
    )
    return _run_steps(steps, progress, cancelled)


def _run_steps(steps: Steps, progress: bool | Callable[[float], None], cancelled: Callable[[], bool] | None) -> Sweep:
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
    """Checked block or token numbers; None for all."""
    if chosen is None:
        return list(known)
    numbers = [whole_number(n, what, known[0], known[-1]) for n in items_of(chosen)[0]]
    if not numbers:
        raise ValueError(f"{what}s is empty: choose at least one, or None for all")
    return numbers


class _Start:
    """The pass that is resumed at every place, and the loop over places."""

    def __init__(self, space: ClassSpace, image: Any, classes: int | str | Sequence[int | str], measure: str) -> None:
        if measure not in ("logit", "probability"):
            raise ValueError(f"measure must be 'logit' or 'probability', got {measure!r}")
        if not isinstance(space, ClassSpace):
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
        resume: Callable[[int, Tensor], tuple[Tensor, dict[int, Product], Tensor | None]],
        *,
        first: int = 0,
    ) -> Generator[float, None, Tensor]:
        """Effects ``[K, n blocks, n places]``, in batches of places.

        ``resume`` gives the batch for some places of a block: input vectors, changed products, tokens that are kept.
        """
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
                    x, products, kept = resume(row, chosen)
                    logits = self.run.run(x, row + first, kept=kept, products=products)
                grid[:, i, begin : begin + size] = (self.read(logits) - self.baseline).T
                done += costs[i] * len(chosen)
                yield done / total
        return grid

    def sweep(self, grid: Tensor, rows: Sequence[int], places: Sequence[int], kind: str, mode: str) -> Sweep:
        """The result, as tensors that autograd accepts."""
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
