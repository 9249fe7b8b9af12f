"""What a newcomer finds: parameters in ``help()``, names under the tab key, and words for what is given in the wrong place."""

from __future__ import annotations

import inspect
import io
import pydoc

import numpy as np
import pytest
from make_fixtures import synthetic
from tiny_models import images_for, tiny_vit

from classspace_widgets import widgets
from classspace_widgets.interventions import RemoveTokens
from classspace_widgets.widgets import Explorer, PatchHeatmap, Session

WIDGETS = [each for name in widgets.__all__ if inspect.isclass(each := getattr(widgets, name))]
MASK = np.pad(np.ones((16, 16), np.uint8), ((0, 16), (0, 16)))


@pytest.fixture(scope="module")
def trace():
    space = tiny_vit()
    return space.trace(images_for(space))


@pytest.mark.parametrize("kind", WIDGETS, ids=lambda kind: kind.__name__)
def test_help_shows_every_parameter(kind):
    shown = io.StringIO()
    pydoc.Helper(output=shown)(kind)
    assert "Public constructor" not in shown.getvalue()
    parameters = inspect.getdoc(kind).partition("Parameters\n----------\n")[2]
    for name, parameter in inspect.signature(kind).parameters.items():
        starred = f"**{name}" if parameter.kind is parameter.VAR_KEYWORD else f"{name} :"
        assert f"\n{starred}" in f"\n{parameters}", (kind.__name__, name)


def test_a_view_of_ones_own_says_what_it_takes():
    class Mine(widgets.View):
        """My view."""

    assert inspect.getdoc(Mine).startswith("My view.\n\nParameters\n----------\ndata : picture, Trace")
    assert "Examples" not in Mine.__doc__


def test_class_names_are_under_the_tab_key(trace):
    session = Session(trace)
    for thing in (trace, trace.space, trace.snapshot(), session, Explorer(session)):
        assert "class_names" in dir(thing)
        assert list(thing.class_names) == list(trace.class_names)


@pytest.mark.parametrize("kind", [Session, Explorer, PatchHeatmap])
def test_a_trace_takes_its_mask_along(kind, trace):
    name = trace.class_names[2]
    made = kind(trace, image=1, mask=MASK, objects=[name], label=name, title="mine", block=2)
    taken = trace.snapshot(image=1, mask=MASK, objects=[name], label=name, title="mine")
    assert np.array_equal(made.snapshot.arrays["mask"], MASK)
    assert made.snapshot.meta["objects"] == taken.meta["objects"]
    assert made.snapshot.meta["image"] == taken.meta["image"]
    assert getattr(made, "session", made).block == 2


def test_what_belongs_to_a_trace_is_sent_there(trace):
    for wrong in (synthetic("all"), trace.snapshot()):
        with pytest.raises(TypeError, match=r"made already: make it with trace.snapshot\(mask=\.\.\., label=\.\.\.\)"):
            Explorer(wrong, mask=MASK, label=1)
    with pytest.raises(TypeError, match=r"trace.snapshot\(mask=\.\.\.\)"):
        Explorer(Session(trace), mask=MASK)
    with pytest.raises(TypeError, match="has no 'masks'; close matches: mask"):
        Explorer(trace, masks=MASK)


def test_pins_have_one_name_wherever_they_are_given(trace, tmp_path, monkeypatch):
    from classspace_widgets import export_html

    monkeypatch.setattr("classspace_widgets.export.front_end.script_text", lambda name: f"/* {name} */")
    pins = {"no corner": RemoveTokens([1])}
    assert Explorer(trace, pins=pins).pins == {"no corner": [RemoveTokens([1])]}
    explorer = Explorer(trace)
    explorer.pins = pins
    page = export_html([explorer, Explorer(trace)], tmp_path / "page.html", pins={"no other": RemoveTokens([2])})
    pinned = [part.partition('"')[0].split() for part in page.path.read_text().split('data-pinned="')[1:]]
    assert [len(states) for states in pinned] == [2, 1]
