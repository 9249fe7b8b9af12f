"""The kernel's interrupt reaches what a view asked for, also in the thread of a subshell."""

from __future__ import annotations

import queue
import signal
import threading
import time

import pytest

from classspace_widgets.widgets import _interrupts
from classspace_widgets.widgets._interrupts import interruptible


@pytest.fixture
def main(monkeypatch):
    """A kernel's main thread that ignores interrupts, as outside of cells: what is to run in it."""
    calls = queue.Queue()
    monkeypatch.setattr(_interrupts, "_in_main_thread", lambda: calls.put)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield calls
    signal.signal(signal.SIGINT, before)


def in_a_thread(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_another_thread_is_interrupted_while_it_computes(main):
    seen = []

    def work():
        try:
            with interruptible():
                for _ in range(2000):
                    time.sleep(0.005)
            seen.append("not interrupted")
        except KeyboardInterrupt:
            seen.append("interrupted")
        for _ in range(20):
            time.sleep(0.001)
        seen.append("went on")

    thread = in_a_thread(work)
    main.get(timeout=5)()
    signal.raise_signal(signal.SIGINT)
    main.get(timeout=5)()
    thread.join(5)
    assert seen == ["interrupted", "went on"]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_an_interrupt_that_comes_late_is_ignored(main):
    seen = []
    leave = threading.Event()

    def work():
        with interruptible():
            pass
        leave.wait(5)
        for _ in range(20):
            time.sleep(0.001)
        seen.append("went on")

    thread = in_a_thread(work)
    listen, stop = main.get(timeout=5), main.get(timeout=5)
    listen()
    signal.raise_signal(signal.SIGINT)
    stop()
    leave.set()
    thread.join(5)
    assert seen == ["went on"]


def test_the_handler_of_a_cell_that_began_meanwhile_is_left_alone(main):
    leave = threading.Event()

    def work():
        with interruptible():
            leave.wait(5)

    thread = in_a_thread(work)
    main.get(timeout=5)()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leave.set()
    thread.join(5)
    main.get(timeout=5)()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_kernel_other_threads_compute_as_they_are(monkeypatch):
    monkeypatch.setattr(_interrupts, "_in_main_thread", lambda: None)
    seen = []

    def work():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    in_a_thread(work).join(5)
    assert seen == [signal.getsignal(signal.SIGINT)]
