"""Progress bars for calls that take longer than a second; no bar is shown inside another.

Bars are text, because a widget's bar becomes an error message in a notebook that is opened without its kernel.  In a notebook
they are one output whose text is replaced: of what is printed, pages made from a notebook, such as Voila's, keep every line.
`show_progress` switches them off, permanently or within a ``with`` block; so does ``TQDM_DISABLE=1`` in the environment.
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
"""Seconds before a bar is shown: about how long people wait without wondering."""

# A bar inside `Bar.part` reports the share that it has done to this function.
_report: ContextVar[Callable[[float], None] | None] = ContextVar("report", default=None)
# True inside a call that shows its own bar, or none.
_hidden: ContextVar[bool] = ContextVar("hidden", default=False)

_shown = True  # set by `show_progress`, for all threads


class show_progress:
    """Show or hide progress bars from now on, or only within a ``with`` block.

    Parameters
    ----------
    show : bool
        False hides all bars. A function's own ``progress=False`` hides the bar of that call.

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
    return show and _shown and not _hidden.get()


class Bar:
    """A progress bar, shown once the work has taken `DELAY` seconds."""

    def __init__(self, total: float | None, title: str, unit: str, *, show: bool = True) -> None:
        self.total, self.title, self.unit, self.show = total, title, unit, show
        self.done = 0.0
        self.started = time.monotonic()
        self.bar: Any = None
        self.report = _report.get()

    def update(self, more: float = 1) -> None:
        """Add to what is done."""
        self.to(self.done + more)

    def to(self, done: float) -> None:
        """Set what is done in all."""
        self.done = done if self.total is None else min(done, self.total)
        if self.report is not None and self.total:
            self.report(self.done / self.total)
        if self.bar is None:
            if not self.show or self.done == self.total or time.monotonic() - self.started < DELAY:
                return
            try:
                from tqdm import tqdm
            except ImportError:  # where views are all that is installed
                self.show = False
                return

            file = _Output() if _in_notebook() else sys.stderr
            self.bar = tqdm(total=self.total, desc=self.title, unit=self.unit, file=file, leave=False, smoothing=0)
            if not self.bar.disable:
                self.bar.start_t -= time.monotonic() - self.started
        self.bar.update(int(self.done) - self.bar.n)

    @contextmanager
    def part(self, size: float) -> Iterator[None]:
        """Inside the context, other bars move this one: together they are this much of it."""
        start = self.done
        token = _report.set(lambda share: self.to(max(self.done, start + size * share)))
        try:
            yield
        finally:
            _report.reset(token)
        self.to(start + size)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()


def _in_notebook() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class _Output:
    """The file of a notebook's bar: an output that shows the last line that was written, and in the end none."""

    encoding = "utf-8"  # tqdm draws its bar as that allows

    def __init__(self) -> None:
        self._handle: Any = None

    def write(self, text: str) -> None:
        from IPython.display import display

        line = {"text/plain": text.strip()}
        if self._handle is not None:
            self._handle.update(line, raw=True)
        elif line["text/plain"]:
            self._handle = display(line, raw=True, display_id=True)

    def flush(self) -> None:
        pass


@contextmanager
def progress_bar(total: float | None, title: str, unit: str = "it", *, show: bool = True) -> Iterator[Bar]:
    """A bar for the work inside the context.

    Parameters
    ----------
    total : float or None
        Value at which the work is done; None where it is not known.
    title, unit : str
        Shown before the bar, and after its numbers.
    show : bool
        False shows no bar, also not those of functions called inside.
    """
    bar = Bar(total, title, unit, show=_wanted(show))
    with quiet():
        token = _report.set(None)  # only `Bar.part` lets bars inside move this one
        try:
            yield bar
        finally:
            _report.reset(token)
            bar.close()


@contextmanager
def quiet(when: bool = True) -> Iterator[None]:
    """Hide the bars of all calls inside the context."""
    token = _hidden.set(when or _hidden.get())
    try:
        yield
    finally:
        _hidden.reset(token)


def over(items: Iterable[Any], total: int, title: str, unit: str = "it", *, show: bool = True) -> Iterator[Any]:
    """Iterate over items with a bar."""
    bar = Bar(total, title, unit, show=_wanted(show))
    try:
        for item in items:
            yield item
            bar.update()
    finally:
        bar.close()


@contextmanager
def over_blocks(blocks: Sequence[nn.Module], pictures: int, title: str) -> Iterator[None]:
    """A bar that advances with every block of forward passes over this many pictures."""
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(len(blocks) * pictures, title, "block"))

        def advance(_module: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
            bar.update(len(args[0]))

        if bar.show:
            for block in blocks:
                stack.callback(block.register_forward_hook(advance).remove)
        yield
