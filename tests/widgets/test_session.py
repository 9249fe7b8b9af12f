"""Session and views in Python: state, validation, requests, closing."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import signal
import weakref

import numpy as np
import pytest
import traitlets
from ipywidgets.embed import dependency_state
from make_fixtures import synthetic
from PIL import Image
from tiny_models import tiny_vit

from classspace_widgets.snapshot import Snapshot
from classspace_widgets.snapshot.container import pack, unpack
from classspace_widgets.snapshot.source import Answer, Progress
from classspace_widgets.widgets import (
    ClassPicker,
    ContributionBars,
    Explorer,
    HeadGrid,
    LayerSlider,
    PatchHeatmap,
    Session,
    TokenTrajectories,
    TopClasses,
    link,
)

VIEWS = [ClassPicker, ContributionBars, Explorer, HeadGrid, LayerSlider, PatchHeatmap, TokenTrajectories, TopClasses]


@pytest.fixture(autouse=True)
def built_front_end(monkeypatch: pytest.MonkeyPatch):
    """These tests are about the kernel's side: any script will do."""
    for module in ("session", "views"):
        monkeypatch.setattr(f"classspace_widgets.widgets.{module}.script", lambda name: "export default {}")


class Recorder:
    """A session's outgoing messages."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[dict] = []
        self.buffers: list[list[bytes]] = []
        monkeypatch.setattr(session, "send", self.take)

    def take(self, content, buffers=None):
        self.sent.append(content)
        self.buffers.append(list(buffers or []))


def request(session: Session, kind: str, number: int = 1, buffers=(), **params) -> None:
    session._on_message(session, {"type": "request", "id": number, "kind": kind, "params": params}, list(buffers))


def test_a_session_starts_at_the_predicted_class_and_the_last_block():
    snapshot = synthetic("all")
    session = Session(snapshot)
    assert session.class_index == snapshot.predicted[0]
    assert (session.block, session.sublayer) == (2, "mlp")
    assert Snapshot.unpack(session._snapshot).meta == snapshot.meta


def test_state_can_be_given_read_set_and_observed():
    session = Session(synthetic("all"), class_name="cactus", reading="logit", block=1, sublayer="attention")
    assert (session.class_index, session.class_name, session.reading, session.block) == (2, "cactus", "logit", 1)
    seen = []
    session.observe(lambda change: seen.append((change.name, change.new)), names=["class_index", "block"])
    session.class_name = "boat"
    session.block = 0
    assert seen == [("class_index", 1), ("block", 0)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("class_index", 7, r"class_index must be in 0\.\.6, got 7"),
        ("compare_index", -1, r"compare_index must be in 0\.\.6, got -1"),
        ("block", 3, r"block must be in 0\.\.2 \(0 is the embedding\), got 3"),
        ("tokens", [0, 7], r"tokens must be in 0\.\.6, got \[7\]"),
        ("reading", "guess", "reading"),
        ("head", [0, 0], r"head must be \[block in 1\.\.2, attention head in 0\.\.1\], got \[0, 0\]"),
        ("head", [1, 2], r"attention head in 0\.\.1"),
        ("colormap", "jet", "colormap"),
        ("opacity", 1.5, "opacity"),
    ],
)
def test_impossible_state_is_refused_and_nothing_changes(name, value, message):
    session = Session(synthetic("all"))
    before = getattr(session, name)
    with pytest.raises(traitlets.TraitError, match=message):
        setattr(session, name, value)
    assert getattr(session, name) == before


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("block", 0)], (0, "embedding")),
        ([("sublayer", "embedding")], (0, "embedding")),
        ([("block", 0), ("block", 2)], (2, "mlp")),
        ([("block", 0), ("sublayer", "attention")], (1, "attention")),
        ([("block", 0), ("sublayer", "attention"), ("block", 2)], (2, "attention")),
        ([("block", 0), ("block", 2), ("sublayer", "attention")], (2, "attention")),
    ],
)
def test_block_0_is_the_embedding_however_it_is_set(steps, expected):
    session = Session(synthetic("all"))
    for name, value in steps:
        setattr(session, name, value)
    assert (session.block, session.sublayer) == expected


def test_a_session_starts_where_half_of_a_place_says():
    for state in ({"block": 0}, {"sublayer": "embedding"}):
        session = Session(synthetic("all"), **state)
        assert (session.block, session.sublayer) == (0, "embedding")
    assert Session(synthetic("all"), block=1).sublayer == "mlp"


def test_a_token_is_selected_once():
    assert Session(synthetic("all"), tokens=[3, 1, 3]).tokens == [3, 1]


def test_state_that_does_not_exist_or_belongs_elsewhere_is_refused():
    with pytest.raises(TypeError, match="no 'clas_name'; close matches: class_name"):
        Explorer(synthetic("all"), clas_name="boat")
    session = Session(synthetic("all"))
    with pytest.raises(TypeError, match="shares a session: set class_name there"):
        LayerSlider(session, class_name="boat")
    with pytest.raises(TypeError, match="image=1 chooses among the pictures of a trace"):
        Explorer(synthetic("all"), image=1)


def test_which_image_of_a_trace_is_shown():
    class Two:
        def snapshot(self, image=0):
            return synthetic("all", seed=image)

    assert Explorer(Two(), image=1).snapshot.meta == synthetic("all", seed=1).meta
    assert Explorer(Two()).snapshot.meta == synthetic("all", seed=0).meta


def test_an_unknown_class_name_gets_close_matches():
    session = Session(synthetic("all"))
    with pytest.raises(ValueError, match="no class is called 'cactis'; close matches: cactus"):
        session.class_name = "cactis"


@pytest.mark.parametrize("view", VIEWS)
def test_views_share_a_session_or_own_one(view):
    session = Session(synthetic("all"))
    first, second = view(session), view(session)
    assert first.session is second.session is session
    assert first.get_state()["_session"] == f"anywidget:{session.model_id}"
    assert first.view == view.__name__
    assert view(first).session is session
    first.close()
    assert session.comm is not None
    own = view(synthetic("all"), class_name="boat")
    inner = own.session
    assert inner.class_name == "boat"
    own.close()
    assert inner.comm is None


def test_anything_else_is_refused_with_what_was_expected():
    with pytest.raises(TypeError, match=r"expected a picture .*, a Trace, a Snapshot or a Session, got int"):
        Explorer(3)


def test_a_model_in_place_of_a_trace_is_told_what_is_missing():
    class Space:
        def trace(self): ...

    with pytest.raises(TypeError, match=r"got Space; trace a picture first: space\.trace\(picture\)"):
        Explorer(Space())


def test_a_closed_view_says_what_to_do(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, **_: shown.append(data))
    explorer = Explorer(synthetic("all"))
    explorer.close()
    explorer._ipython_display_()
    (data,) = shown
    assert data["text/plain"].startswith("Explorer(Session(")
    assert data["text/plain"].endswith("is closed; make it again to show it.")


def test_closing_frees_the_snapshot():
    gc.collect()
    refs = []
    for _ in range(50):
        explorer = Explorer(synthetic("all"))
        refs += [weakref.ref(explorer), weakref.ref(explorer.session), weakref.ref(explorer.session.snapshot)]
        explorer.close()
    del explorer
    gc.collect()
    assert sum(ref() is not None for ref in refs) == 0


def test_closing_leaves_no_widget_behind():
    """A layout is a widget of its own: closed with its view, and left alone where somebody else gave it."""
    from ipywidgets import Layout
    from ipywidgets.widgets.widget import _instances

    from classspace_widgets.widgets import Explorer

    before = set(_instances)
    for view in VIEWS:
        shown = view(synthetic("all"))
        shown.close()
        shown.close()
    session = Session(synthetic("all"))
    first, second = Explorer(session), PatchHeatmap(session)
    first.close()
    assert second.layout.comm is not None
    second.close()
    session.close()
    assert set(_instances) == before
    given = Layout(width="50%")
    shown = Explorer(synthetic("all"))
    shown.layout = given
    shown.close()
    assert set(_instances) - before == {given.model_id}
    given.close()


def test_a_new_snapshot_keeps_what_still_makes_sense():
    session = Session(synthetic("all"), tokens=[6], compare_index=1, block=2)
    session.snapshot = synthetic("all", seed=5)
    assert session.class_index == synthetic("all", seed=5).predicted[0]
    assert session.tokens == [6]
    assert session.compare_index == 1
    assert session.shown == "baseline"


def test_a_session_from_a_file_has_no_model():
    session = Session(synthetic("all"))
    with pytest.raises(RuntimeError, match="no model behind it"):
        session.image = "fish.jpg"


class Scripted:
    """A source whose answers are given by the test."""

    def __init__(self, steps) -> None:
        self.steps = steps

    def answer(self, kind, params, buffers):
        return self.steps(kind, params, buffers)


def test_a_request_reports_progress_and_answers(monkeypatch):
    snapshot = synthetic("classes")

    def steps(kind, params, buffers):
        yield Progress(0.5, "half way")
        return Answer({"echo": [kind, params["x"], bytes(buffers[0]).decode()]}, pack({"kind": "part"}, {}))

    snapshot.source = Scripted(steps)
    session = Session(snapshot)
    record = Recorder(session, monkeypatch)
    request(session, "classes", 4, [memoryview(b"hi")], x=3)
    assert record.sent == [
        {"type": "progress", "id": 4, "fraction": 0.5, "text": "half way"},
        {"type": "response", "id": 4, "ok": True, "result": {"echo": ["classes", 3, "hi"]}},
    ]
    assert unpack(record.buffers[1][0])[0] == {"kind": "part"}
    assert session.status["kind"] == "idle"


def test_a_kernel_exception_is_shown_in_words_and_the_session_stays_usable(monkeypatch, caplog):
    snapshot = synthetic("classes")

    def steps(kind, params, buffers):
        yield Progress(0.1)
        raise MemoryError("out of GPU memory; use a smaller picture")

    snapshot.source = Scripted(steps)
    session = Session(snapshot)
    record = Recorder(session, monkeypatch)
    request(session, "classes")
    assert record.sent[-1]["error"] == {"title": "MemoryError", "message": "out of GPU memory; use a smaller picture"}
    assert session.status == {"kind": "error", "text": "out of GPU memory; use a smaller picture", "progress": None}
    assert "request 'classes' failed" in caplog.text
    session.class_index = 1
    assert session.class_name == "boat"


def test_a_request_without_a_model_is_answered_with_an_error(monkeypatch):
    session = Session(synthetic("classes"))
    record = Recorder(session, monkeypatch)
    request(session, "classes", classes=[0])
    assert "no model behind it" in record.sent[-1]["error"]["message"]


def test_an_interrupt_of_the_kernel_ends_a_request(monkeypatch):
    """The kernel ignores the signal outside of cells, and takes it again within a step."""

    def steps(_kind, _params, _buffers):
        yield Progress(0.5, "half way")
        signal.raise_signal(signal.SIGINT)
        return Answer()

    snapshot = synthetic("all")
    snapshot.source = Scripted(steps)
    session = Session(snapshot)
    recorder = Recorder(session, monkeypatch)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        request(session, "whatif")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert recorder.sent[-1]["error"] == {
        "title": "Interrupted",
        "message": "The computation was interrupted; nothing changed.",
    }
    assert session.status["kind"] == "idle"


def test_a_long_request_can_be_cancelled(monkeypatch):
    done = []

    def steps(kind, params, buffers):
        for i in range(1000):
            done.append(i)
            yield Progress(i / 1000)
        return Answer()

    snapshot = synthetic("classes")
    snapshot.source = Scripted(steps)
    session = Session(snapshot)
    record = Recorder(session, monkeypatch)

    async def scenario():
        request(session, "sweep", 9)
        for _ in range(5):
            await asyncio.sleep(0)
        session._on_message(session, {"type": "cancel", "id": 9}, [])
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert 0 < len(done) < 20
    assert record.sent[-1]["error"]["title"] == "Cancelled"
    assert session.status["kind"] == "idle"
    assert not session._requests.tasks


def test_linking_names_what_it_links():
    first, second = Explorer(synthetic("all")), Session(synthetic("all"))
    made = link(first, second, "class_index", "block")
    (entry,) = first.session._links
    assert entry["names"] == ["class_index", "block"]
    assert entry["other"] == f"anywidget:{second.model_id}"
    again = link(first, second, "opacity")
    made.close()
    assert [e["names"] for e in first.session._links] == [["opacity"]]
    again.close()
    assert first.session._links == []
    with pytest.raises(ValueError, match="cannot link"):
        link(first, second, "nonsense")
    with pytest.raises(TypeError, match="expected two sessions or views, got int"):
        link(first, 3)


def parts_of(output: dict) -> dict:
    """What the script of a saved form was given."""
    return json.loads(output["application/javascript"].partition("picture } = ")[2].partition(";\n")[0])


def test_a_saved_notebook_keeps_a_form_without_a_kernel(monkeypatch):
    shown = []
    monkeypatch.setattr("classspace_widgets.export.front_end.script_text", lambda name: f"/* {name} */")
    monkeypatch.setattr("IPython.display.display", lambda data, raw, **_: shown.append(data))
    explorer = Explorer(synthetic("all"), class_name="boat")
    explorer._ipython_display_()
    live, saved, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    # HTML would come before the picture where scripts are taken out, and its source be shown as text.
    assert set(saved) == {"application/javascript", "text/plain"}
    assert set(still) == {"image/png", "text/plain"}
    script = saved["application/javascript"]
    assert 'frame.sandbox = "allow-scripts";' in script
    assert "</" not in script
    parts = parts_of(saved)
    assert parts["session"] == f"anywidget:{explorer.session.model_id}"
    assert parts["title"] == "Explorer"
    assert "&quot;class_index&quot;: 1" in parts["page"]
    picture = Image.open(io.BytesIO(base64.b64decode(still["image/png"])))
    assert picture.width > 300
    assert parts["picture"] == list(picture.size)
    assert "Identifiability of boat" in still["text/plain"]
    assert "trust this notebook" in still["text/plain"]
    monkeypatch.setattr(Explorer, "saved_form", "picture")
    explorer._ipython_display_()
    assert set(parts_of(shown[-2])) == {"session", "picture"}
    assert set(shown[-1]) == {"image/png", "text/plain"}
    monkeypatch.setattr(Explorer, "saved_form", "page")
    monkeypatch.setattr("classspace_widgets.export.saved.SAVED_LIMIT", 10)
    explorer._ipython_display_()
    assert set(parts_of(shown[-2])) == {"session", "picture"}
    assert set(shown[-1]) == {"image/png", "text/plain"}
    assert "trust" not in shown[-1]["text/plain"]
    shown.clear()
    monkeypatch.setattr(Explorer, "saved_form", "none")
    explorer._ipython_display_()
    assert len(shown) == 1


def test_colab_is_told_where_its_front_end_is(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, **more: shown.append(more))
    monkeypatch.setattr(Explorer, "saved_form", "none")
    told = {"application/vnd.jupyter.widget-view+json": {"colab": {"custom_widget_manager": {"url": "here"}}}}
    monkeypatch.setattr("anywidget._util.get_repr_metadata", lambda: told)
    Explorer(synthetic("all"))._ipython_display_()
    assert shown == [{"metadata": told}]


def test_a_view_takes_its_session_and_linked_ones_along():
    explorer, other, third = (Explorer(synthetic("all")) for _ in range(3))
    made = link(explorer, other)
    assert {explorer.model_id, explorer.session.model_id, other.session.model_id} <= set(dependency_state([explorer]))
    assert third.session.model_id not in dependency_state([explorer])
    made.close()
    assert other.session.model_id not in dependency_state([explorer])


def test_a_session_says_whether_a_model_answers():
    trace = tiny_vit().trace(Image.new("RGB", (32, 32), "teal"))
    from_file = Session(Snapshot.unpack(trace.snapshot().pack()))
    assert not from_file._answers
    from_file.snapshot = trace
    assert from_file._answers
    assert Session(trace)._answers


def test_a_session_shows_itself_as_text():
    data, _ = Session(synthetic("all"))._repr_mimebundle_()
    assert list(data) == ["text/plain"]
    assert data["text/plain"].startswith("Session(")


def test_pins_go_both_ways():
    from classspace_widgets.interventions import KnockOutAttention, RemoveTokens

    explorer = Explorer(synthetic("all"))
    assert explorer.pins == {}
    explorer.pins = {"alone": KnockOutAttention("self_only"), "both": [RemoveTokens([2]), KnockOutAttention("no_cls")]}
    assert explorer.pins == {
        "alone": [KnockOutAttention("self_only")],
        "both": [RemoveTokens([2]), KnockOutAttention("no_cls")],
    }
    # As the panel writes them.
    explorer.session.set_state(
        {"_pins": [{"label": "x", "steps": [{"spec": {"type": "RemoveTokens", "tokens": [3]}, "label": "x"}]}]}
    )
    assert explorer.pins == {"x": [RemoveTokens([3])]}
    with pytest.raises(ValueError, match="no intervention"):
        explorer.pins = {"nothing": []}


def test_steps_of_a_pin_have_short_names():
    from classspace_widgets.interventions import KnockOutAttention, RemoveTokens

    mask = RemoveTokens(mask=np.eye(96, dtype=bool))
    explorer = Explorer(synthetic("all"), pins={"no line": mask, "both": [mask, KnockOutAttention("no_cls")]})
    names = [[step["label"] for step in pin["steps"]] for pin in explorer.session._pins]
    assert names == [["no line"], ["RemoveTokens(mask=bool [96, 96])", "KnockOutAttention(kind='no_cls')"]]
    assert explorer.pins["no line"] == [mask]


def test_the_view_can_clear_the_intervened_pass():
    session = Session(synthetic("all"))
    session._intervened = synthetic("all").pack()
    session.set_state({"_intervened": memoryview(b"")})
    assert session._intervened == b""


def test_options_that_a_view_does_not_have_are_named():
    assert PatchHeatmap(synthetic("all"), options={"bare": True}).options == {"bare": True}
    with pytest.raises(ValueError, match="PatchHeatmap has no option 'size'; it has bare"):
        PatchHeatmap(synthetic("all"), options={"size": 3})
    with pytest.raises(ValueError, match="Explorer has no option 'bare'; it has none"):
        Explorer(synthetic("all"), options={"bare": True})


class Told:
    """A source whose answers wait for nothing: it yields so often, then gives what was asked for."""

    def __init__(self, steps: int = 3) -> None:
        self.steps = steps

    def answer(self, kind, params, buffers=()):
        for _ in range(self.steps):
            yield Progress(0.5)
        return Answer({"asked": params.get("n")})


def talking(monkeypatch, messages, *, steps: int = 3) -> list[dict]:
    """What a session in a running kernel sends when these messages come in one after the other."""
    snapshot = synthetic("classes")
    snapshot.source = Told(steps)
    session = Session(snapshot)
    record = Recorder(session, monkeypatch)

    async def scenario():
        for message in messages:
            session._on_message(session, message, [])
        for _ in range(20 + steps):
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert not session._requests.tasks
    return [message for message in record.sent if message["type"] == "response"]


def asking(number, n=None, **more):
    return {"type": "request", "id": number, "kind": "classes", "params": {"n": n}, **more}


def test_a_cancel_before_the_request_has_begun_is_answered(monkeypatch):
    """Both messages wait while the kernel is busy: the second is read before the first has begun."""
    (answer,) = talking(monkeypatch, [asking(4, client="a"), {"type": "cancel", "id": 4, "client": "a"}])
    assert answer == {
        "type": "response",
        "client": "a",
        "id": 4,
        "ok": False,
        "error": {"title": "Cancelled", "message": "The computation was cancelled; nothing changed."},
    }
    # A second click cancels nothing more, and a cancel of nothing is no error.
    again = talking(monkeypatch, [asking(4), *[{"type": "cancel", "id": 4}] * 3, {"type": "cancel", "id": 9}])
    assert [a["error"]["title"] for a in again] == ["Cancelled"]
    assert talking(monkeypatch, [{"type": "cancel", "id": 4}]) == []


def test_requests_of_two_browsers_do_not_mix(monkeypatch):
    """Both count from 1: the number and the browser together say which request is meant."""
    messages = [asking(1, "first", client="a"), asking(1, "second", client="b"), asking(1, "third")]
    answers = talking(monkeypatch, messages)
    assert {(a.get("client"), a["id"]): a["result"]["asked"] for a in answers} == {
        ("a", 1): "first",
        ("b", 1): "second",
        (None, 1): "third",
    }
    answers = talking(monkeypatch, [*messages, {"type": "cancel", "id": 1, "client": "b"}])
    assert {a.get("client"): a["ok"] for a in answers} == {"a": True, "b": False, None: True}
    assert all("client" not in a for a in answers if a["ok"] and a["result"]["asked"] == "third")


def test_the_same_number_twice_is_refused(monkeypatch):
    first, second = talking(monkeypatch, [asking(1, "first"), asking(1, "second")])
    assert "being answered already" in first["error"]["message"]
    assert second["result"] == {"asked": "first"}


def test_only_so_many_requests_may_wait(monkeypatch):
    monkeypatch.setattr("classspace_widgets.widgets._requests.MAX_REQUESTS", 3)
    answers = talking(monkeypatch, [asking(number) for number in range(5)])
    refused = [a["id"] for a in answers if not a["ok"]]
    assert refused == [3, 4]
    assert "3 requests are waiting already" in answers[0]["error"]["message"]
    assert sorted(a["id"] for a in answers if a["ok"]) == [0, 1, 2]


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        [],
        {},
        {"type": "request"},
        {"type": "request", "id": None},
        {"type": "request", "id": [1]},
        {"type": "request", "id": {"a": 1}},
        {"type": "request", "id": "x" * 1000},
        {"type": "request", "id": 1, "client": ["a"]},
        {"type": "cancel"},
        {"type": "cancel", "id": []},
        {"type": "dance", "id": 1},
    ],
)
def test_messages_that_no_view_sends_are_left_alone(monkeypatch, message):
    answers = talking(monkeypatch, [message, asking(1, "good")])
    assert [a["result"] for a in answers] == [{"asked": "good"}]


@pytest.mark.parametrize("message", [{"kind": None}, {"kind": ["classes"]}, {"params": None}, {"params": [1]}])
def test_odd_requests_are_answered_in_words(monkeypatch, message):
    from tiny_models import images_for, tiny_vit

    space = tiny_vit()
    session = Session(space.trace(images_for(space, 1)))
    record = Recorder(session, monkeypatch)
    session._on_message(session, {**asking(1), **message}, [])
    assert record.sent[-1]["ok"] is False
    assert record.sent[-1]["error"]["title"] in ("ValueError", "TypeError")


def test_scripts_of_the_front_end_are_sent_without_a_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("classspace_widgets.export.front_end.script_text", lambda name: f"text of {name}")
    session = Session(synthetic("all"))
    out = Recorder(session, monkeypatch)
    for kind in ("script actions", "script ../cli/doctor", "script "):
        session._on_message(session, {"type": "request", "id": 1, "client": "a", "kind": kind, "params": {}}, [])
    good, *bad = out.sent
    assert good == {"type": "response", "client": "a", "id": 1, "ok": True, "result": {"text": "text of actions.js"}}
    assert [answer["ok"] for answer in bad] == [False, False]
    assert "expected one of page, actions" in bad[0]["error"]["message"]
    assert session.status["kind"] == "idle"
