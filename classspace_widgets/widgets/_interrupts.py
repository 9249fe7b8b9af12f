"""Letting the kernel's interrupt through to what a view asked for.

Outside of cells a kernel ignores its interrupt (SIGINT). While a request is computed, it raises `KeyboardInterrupt` there: in
the main thread, or in the thread of a subshell, to which JupyterLab sends the messages of widgets.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in this thread where the kernel is interrupted meanwhile."""
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        return
    later = _in_main_thread()
    if later is None:
        yield
        return
    interrupt = _Interrupt(threading.get_ident())
    later(interrupt.listen)
    try:
        yield
    finally:
        interrupt.end()
        later(interrupt.stop_listening)


class _Interrupt:
    """Hands the kernel's interrupt on to another thread, until it has ended what can be interrupted."""

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self._lock = threading.Lock()
        self._over = False
        self._before: Any = None

    def listen(self) -> None:
        """In the main thread: only there can handlers of signals be set."""
        if not self._over:
            self._before = signal.signal(signal.SIGINT, self._raise)

    def stop_listening(self) -> None:
        """In the main thread; a handler that a cell has set meanwhile is left alone."""
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._raise:
            signal.signal(signal.SIGINT, self._before)

    def end(self) -> None:
        """In the other thread: what comes from now on is not raised there."""
        with self._lock:
            self._over = True
            _raise_in(self.thread, None)

    def _raise(self, _number: int, _frame: Any) -> None:
        # Not waiting: where the other thread holds the lock, it is at its end.
        if self._lock.acquire(blocking=False):
            try:
                if not self._over:
                    _raise_in(self.thread, KeyboardInterrupt)
            finally:
                self._lock.release()


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an error in a thread when it next runs Python code; None takes back one that has not been raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error else ctypes.py_object()
    )


def _in_main_thread() -> Callable[[Callable[[], None]], Any] | None:
    """Runs a function in the main thread of the kernel; None where there is no kernel."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython

    loop = getattr(getattr(get_ipython(), "kernel", None), "io_loop", None)
    found: Callable[[Callable[[], None]], Any] | None = getattr(loop, "add_callback", None)
    return found
