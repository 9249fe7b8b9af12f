"""Progress bars for whatever takes longer than a second; quicker calls show none, and no bar shows inside another.

Bars are text, not widgets: a widget's bar would be an error message in a notebook that is opened without its kernel.
`show_progress` switches them off, for good or around a call, and ``TQDM_DISABLE=1`` in the environment does it from outside.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import nn

__all__ = ["show_progress"]

DELAY = 1.0
"""Seconds that pass before a bar shows."""

_part: ContextVar[Callable[[float], None] | None] = ContextVar("where a bar inside tells how far it is", default=None)
_inside: ContextVar[bool] = ContextVar(
    "inside of something that shows its progress itself, or wants none", default=False
)

_shown = True  # by `show_progress`, in all threads


class show_progress:
    """Show progress bars, or none, from now on; in a ``with`` statement, inside of it alone.

    Parameters
    ----------
    show : bool
        Functions that take ``progress=`` show no bar where either says so.

    Examples
    --------
    >>> from classspace_widgets import show_progress
    >>> from classspace_widgets.scenes import gallery
    >>> with show_progress(False):  # none for this call
    ...     trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> _ = show_progress(False)  # none from now on
    >>> _ = show_progress()  # and again
    """

    def __init__(self, show: bool = True) -> None:
        global _shown
        self._before, _shown = _shown, bool(show)

    def __repr__(self) -> str:
        return f"show_progress({_shown})"

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        global _shown
        _shown = self._before


def _wanted(show: bool) -> bool:
    return show and _shown and not _inside.get()


class Bar:
    """How much of something is done; shown once it has taken `DELAY` seconds."""

    def __init__(self, total: float, what: str, unit: str, *, show: bool = True) -> None:
        self.total, self.what, self.unit, self.show = total, what, unit, show
        self.done = 0.0
        self.began = time.monotonic()
        self.drawn: Any = None
        self.tell = _part.get()

    def update(self, more: float = 1) -> None:
        """So much more is done."""
        self.to(self.done + more)

    def to(self, done: float) -> None:
        """So much is done in all."""
        self.done = min(done, self.total)
        if self.tell is not None and self.total:
            self.tell(self.done / self.total)
        if self.drawn is None:
            if not self.show or self.done >= self.total or time.monotonic() - self.began < DELAY:
                return
            from tqdm import tqdm

            # In a notebook what goes to stderr looks like an error.
            file = sys.stdout if "ipykernel" in sys.modules else sys.stderr
            self.drawn = tqdm(total=self.total, desc=self.what, unit=self.unit, file=file, leave=False, smoothing=0)
            if not self.drawn.disable:
                self.drawn.start_t -= time.monotonic() - self.began
        self.drawn.update(int(self.done) - self.drawn.n)

    @contextmanager
    def part(self, size: float) -> Iterator[None]:
        """What is done inside is so much of this bar, and moves it as its own bar would move."""
        began = self.done
        token = _part.set(lambda share: self.to(max(self.done, began + size * share)))
        try:
            yield
        finally:
            _part.reset(token)
        self.to(began + size)

    def close(self) -> None:
        """Take the bar away."""
        if self.drawn is not None:
            self.drawn.close()


@contextmanager
def progress_bar(total: float, what: str, unit: str = "it", *, show: bool = True) -> Iterator[Bar]:
    """A bar for what happens inside of the context.

    Parameters
    ----------
    total : float
        What `Bar.update` and `Bar.to` will come to.
    what, unit : str
        Shown before the bar and behind the numbers.
    show : bool
        False: no bar, and none of what is called inside.
    """
    bar = Bar(total, what, unit, show=_wanted(show))
    with quiet():
        token = _part.set(None)  # what is inside moves this bar where it says so, and none around it
        try:
            yield bar
        finally:
            _part.reset(token)
            bar.close()


@contextmanager
def quiet(when: bool = True) -> Iterator[None]:
    """No bars inside of the context."""
    token = _inside.set(when or _inside.get())
    try:
        yield
    finally:
        _inside.reset(token)


def over(items: Iterable[Any], total: int, what: str, unit: str = "it", *, show: bool = True) -> Iterator[Any]:
    """Go through items under a bar."""
    bar = Bar(total, what, unit, show=_wanted(show))
    try:
        for item in items:
            yield item
            bar.update()
    finally:
        bar.close()


@contextmanager
def over_blocks(blocks: Sequence[nn.Module], pictures: int, what: str) -> Iterator[None]:
    """A bar over the blocks of forward passes of so many pictures."""
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(len(blocks) * pictures, what, "block"))

        def passed(_module: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
            bar.update(len(args[0]))

        if bar.show:
            for block in blocks:
                stack.callback(block.register_forward_hook(passed).remove)
        yield
