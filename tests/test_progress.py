"""Bars show after a second, once, and never inside one another."""

from __future__ import annotations

import base64
import functools
import gzip
import threading

import pytest
import torch
from study_helpers import Pictures
from tiny_models import tiny_vit
from tqdm import tqdm

from classspace_widgets import Explorer, export_html, progress, show_progress
from classspace_widgets.capture import payload
from classspace_widgets.causal import sweep_heads
from classspace_widgets.explain import importance
from classspace_widgets.explain.perturbation import perturbation
from classspace_widgets.export import packed
from classspace_widgets.interventions import RemoveTokens, subsets
from classspace_widgets.memories import memory_atlas, most_activating
from classspace_widgets.plots import write_report
from classspace_widgets.probing import fit_probes, probe_accuracy
from classspace_widgets.space import stream_readings
from classspace_widgets.studies import Execution, run_study


@pytest.fixture
def at_once(monkeypatch):
    """As if everything took over a second."""
    monkeypatch.setattr(progress, "DELAY", 0.0)


def pixels(space, count=2):
    return torch.zeros(count, 3, *space.preprocessing.size)


def scored(space, _):
    patches = space.adapter.grid[0] * space.adapter.grid[1]
    return perturbation(space, pixels(space), [0, 1], torch.rand(2, patches))


LONG = {
    "forward pass": lambda s, _: s.trace(pixels(s)),
    "reading": lambda s, _: s.trace(pixels(s)).ranks("residual", None),
    "forward pass of readings": lambda s, _: stream_readings(s, pixels(s), [0]),
    "forward pass of importance": lambda s, _: importance(s, [0], images=pixels(s)),
    "passes without tokens": scored,
    "sweep": lambda s, _: sweep_heads(s, pixels(s, 1), 0),
    "memories": lambda s, _: most_activating(s, Pictures(9), 1, "mlp", [0], batch_size=3),
    "study": lambda s, _: run_study(s, Pictures(6), "accuracy", execution=Execution(batch_size=2)),
    "probes": lambda s, _: fit_probes(s, Pictures(40), tokens=[0], batch_size=4),
    "solving": lambda s, _: fit_probes(s, Pictures(40), tokens=[0], batch_size=4),
    "report": lambda s, to: write_report(
        run_study(s, Pictures(2), ["accuracy", "identifiability"]), to / "report.html"
    ),
    "snapshot": lambda s, _: s.trace(pixels(s, 1)).snapshot(payload="increments"),
    "snapshot of an explorer": lambda s, _: Explorer(s.trace(pixels(s, 1))),
    "page": lambda s, to: export_html(s.trace(pixels(s, 1)), to / "page.html", payload="increments"),
    "fresh weights": lambda s, _: s.random_twin(),
    "probe accuracy": lambda s, _: probe_accuracy(
        s, fit_probes(s, Pictures(40), tokens=[0]), Pictures(40), batch_size=4
    ),
}


@pytest.mark.parametrize("what", LONG)
def test_what_takes_long_shows_a_bar(what, at_once, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(subsets, "TOKENS_AT_ONCE", 64)
    monkeypatch.setattr(payload, "ALL_LIMIT", 0)
    LONG[what](tiny_vit(), tmp_path)
    shown = capfd.readouterr().err
    assert what.split(" of ")[0] + ":" in shown
    assert "100%" not in shown.split("\r")[-1]  # nothing is left behind


def test_what_is_quick_shows_none(capfd):
    space = tiny_vit()
    space.trace(pixels(space)).ranks("residual", None)
    run_study(space, Pictures(4), "accuracy")
    assert capfd.readouterr().err == ""


def test_a_study_shows_one_bar_and_none_where_none_is_wanted(at_once, capfd):
    space = tiny_vit()
    run_study(space, Pictures(6), ["accuracy", "token_removal"], execution=Execution(batch_size=2))
    shown = capfd.readouterr().err
    assert "study:" in shown
    assert "pass" not in shown
    run_study(space, Pictures(6), ["accuracy", "token_removal"], execution=Execution(batch_size=2), progress=False)
    assert capfd.readouterr().err == ""
    with progress.quiet():
        space.trace(pixels(space))
    assert capfd.readouterr().err == ""


UNWATCHED = {
    "probes": lambda s: fit_probes(s, Pictures(40), tokens=[0], batch_size=4, progress=False),
    "probe accuracy": lambda s: probe_accuracy(
        s, fit_probes(s, Pictures(40), tokens=[0], progress=False), Pictures(40), batch_size=4, progress=False
    ),
    "memories": lambda s: most_activating(s, Pictures(9), 1, "mlp", [0], batch_size=3, progress=False),
    "atlas": lambda s: memory_atlas(s, Pictures(9), batch_size=3, progress=False),
    "sweep": lambda s: sweep_heads(s, pixels(s, 1), 0, progress=False),
    "twin": lambda s: run_study(s, Pictures(4), "accuracy", random_twin=True, progress=False),
}


@pytest.mark.parametrize("what", UNWATCHED)
def test_where_no_bar_is_wanted_none_shows(what, at_once, capfd):
    UNWATCHED[what](tiny_vit())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("what", LONG)
def test_bars_are_switched_off_around_a_call_and_for_a_session(what, at_once, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(subsets, "TOKENS_AT_ONCE", 64)
    monkeypatch.setattr(payload, "ALL_LIMIT", 0)
    space = tiny_vit()
    with show_progress(False):
        LONG[what](space, tmp_path)
    assert capfd.readouterr().err == ""
    show_progress(False)
    try:
        LONG[what](space, tmp_path)
        with show_progress():
            pass
        with show_progress(False):
            pass
        space.trace(pixels(space))
        assert capfd.readouterr().err == ""
        with show_progress():
            space.trace(pixels(space))
        assert "forward pass:" in capfd.readouterr().err
    finally:
        show_progress()
    space.trace(pixels(space))
    assert "forward pass:" in capfd.readouterr().err


def test_a_switch_goes_back_when_something_fails_and_holds_in_every_thread(at_once, capfd):
    def fail():
        with show_progress(False):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with progress.progress_bar(2, "again") as bar:
        assert bar.show
    seen = []
    with show_progress(False):
        thread = threading.Thread(
            target=lambda: seen.append(progress.Bar(1, "x", "y", show=progress._wanted(True)).show)
        )
        thread.start()
        thread.join()
    assert seen == [False]


def test_pages_and_reports_take_progress(at_once, capfd, tmp_path):
    space = tiny_vit()
    results = run_study(space, Pictures(2), ["accuracy"], progress=False)
    with show_progress(False):
        trace = space.trace(pixels(space, 1))
    export_html(trace, tmp_path / "page.html", progress=False)
    write_report(results, tmp_path / "report.html", progress=False)
    assert capfd.readouterr().err == ""


@pytest.fixture
def drawn(monkeypatch):
    """The bars that were drawn, and every number they stood at."""
    drawn = []

    class Drawn:
        disable = False

        def __init__(self, total, **_options):
            self.total, self.n, self.start_t, self.stood = total, 0, 0.0, [0]
            drawn.append(self)

        def update(self, more):
            self.n += more
            self.stood.append(self.n)

        def close(self):
            self.closed = True

    monkeypatch.setattr("tqdm.tqdm", Drawn)
    return drawn


def test_bars_count(at_once, drawn):
    space = tiny_vit()
    space.trace(pixels(space, 3), chunk=2)
    (bar,) = drawn
    # The last block of all ends with what was to be done, however the pictures were divided.
    assert (bar.n, bar.total) == (3 * len(space.adapter.blocks),) * 2
    assert bar.closed


def test_the_page_of_one_view_moves_while_it_is_read_and_packed(at_once, drawn, monkeypatch, tmp_path):
    monkeypatch.setattr(packed, "CHUNK", 500)
    space = tiny_vit()
    trace = space.trace(pixels(space, 1))
    drawn.clear()
    export_html(trace, tmp_path / "page.html", payload="increments")
    (bar,) = drawn
    assert bar.stood == sorted(bar.stood)
    assert sum(0 < n < 50 for n in set(bar.stood)) > 10
    assert sum(50 < n < 100 for n in set(bar.stood)) >= 2
    assert bar.n == 100


def test_the_bar_of_a_page_has_a_step_for_every_pass(at_once, drawn, monkeypatch, tmp_path):
    steps = []
    part = progress.Bar.part
    monkeypatch.setattr(progress.Bar, "part", lambda bar, size: (steps.append((bar.title, size)), part(bar, size))[1])
    space = tiny_vit()
    snapshot = space.trace(pixels(space, 1)).snapshot()
    pins = {"without one": RemoveTokens([1]), "without two": RemoveTokens([1, 2])}
    export_html(["# Words are no work", snapshot, [snapshot, snapshot]], tmp_path / "page.html", pins=pins)
    # Three are read, each is run with two interventions, and all nine are packed.
    read, run, pack = 100 / 18, [100 / 18] * 6, 50
    assert [size for what, size in steps if what == "page"] == pytest.approx([0, read, 2 * read, *run, pack])


def test_a_part_moves_the_bar_around_it_alone(at_once, drawn):
    with progress.progress_bar(10, "outer") as outer:
        with outer.part(4), progress.progress_bar(8, "inner") as inner:
            for _ in range(8):
                inner.update()
                for _ in progress.over(range(2), 2, "within"):
                    pass
        outer.update(2)
        with outer.part(4):
            pass
    (bar,) = drawn
    assert bar.stood == [0, *(n // 2 for n in range(1, 9)), 4, 6, 10]


def test_packing_in_pieces_gives_the_same_bytes(monkeypatch):
    data = bytes(range(256)) * 50
    whole = packed.packed(data)
    monkeypatch.setattr(packed, "CHUNK", 1000)
    assert packed.packed(data) == whole
    assert gzip.decompress(base64.b64decode(whole)) == data


def test_bars_can_be_switched_off_for_good(at_once, capfd, monkeypatch):
    # What tqdm makes of TQDM_DISABLE=1, which it reads when it is imported.
    monkeypatch.setattr("tqdm.tqdm", functools.partial(tqdm, disable=True))
    tiny_vit().trace(torch.zeros(2, 3, 32, 32))
    assert capfd.readouterr().err == ""


def test_a_bar_goes_when_something_fails(at_once, capfd):
    def fail():
        with progress.progress_bar(3, "failing") as bar:
            bar.update()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert capfd.readouterr().err.split("\r")[-1].strip() == ""
    with progress.progress_bar(2, "again") as bar:
        assert bar.show


BARS = """
from classspace_widgets import progress

progress.DELAY = 0.0
print("before")
with progress.progress_bar(5, "forward pass") as bar:
    for number in range(5):
        bar.bar and setattr(bar.bar, "mininterval", 0)
        bar.update()
        if number == 3:
            print("during")
"""


def test_a_notebook_that_is_run_keeps_no_bar():
    """As Voila, nbconvert and books run one: they take no notice of a carriage return."""
    nbclient = pytest.importorskip("nbclient")
    from nbformat.v4 import new_code_cell, new_notebook

    seen = []

    class Client(nbclient.NotebookClient):
        def process_message(self, msg, cell, cell_index):
            seen.append(str(msg["content"].get("data", "")))
            return super().process_message(msg, cell, cell_index)

    book = new_notebook(cells=[new_code_cell(BARS)])
    Client(book).execute()
    assert any("forward pass:  40%|████      | 2/5" in text for text in seen)
    printed, bar, more = book.cells[0].outputs
    assert (printed["text"], more["text"]) == ("before\n", "during\n")
    assert bar["data"] == {"text/plain": ""}
