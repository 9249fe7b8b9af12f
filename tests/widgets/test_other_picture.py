"""A second picture beside a session's own: its states are carried into the first one's pass, from Python and as the panel asks."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
import torch
import traitlets
from ipywidgets.embed import dependency_state
from make_fixtures import synthetic
from PIL import Image
from tiny_models import images_for, tiny_vit

from classspace_widgets.export import export_html
from classspace_widgets.interventions import PatchResidual, RemoveTokens, trace_with
from classspace_widgets.snapshot import Snapshot
from classspace_widgets.widgets import Explorer, Session


@pytest.fixture(autouse=True)
def built_front_end(monkeypatch: pytest.MonkeyPatch):
    for module in ("session", "views"):
        monkeypatch.setattr(f"classspace_widgets.widgets.{module}.script", lambda name: "export default {}")
    monkeypatch.setattr("classspace_widgets.export.front_end.runtime", lambda: "/* runtime */")


@pytest.fixture
def two():
    """A model, and the traces of two pictures."""
    space = tiny_vit()
    images = images_for(space)
    return space, *(space.trace(image[None], attention=True, heads=True) for image in images[:2])


def after(view) -> np.ndarray:
    """The output's logits of the intervened pass that a session shows."""
    session = getattr(view, "session", view)
    return Snapshot.unpack(session._intervened).arrays["output_logits"]


def test_a_state_of_the_second_picture_is_carried_to_a_token_of_the_first(two):
    space, own, other = two
    explorer = Explorer(own, other=other)
    carried = PatchResidual(2, tokens=[5], source="other", source_block=3, source_token=7)
    explorer.interventions = carried
    expected = trace_with(space, own, carried, sources={"other": other}, attention=True, heads=True)
    assert np.array_equal(after(explorer), expected.output[0].numpy())
    assert explorer.interventions == [carried]
    assert explorer.session.shown == "intervened"
    # More of it is read from the same pass.
    assert explorer.snapshot.source.intervened_trace is not None
    explorer.interventions = [RemoveTokens([3]), carried]
    assert explorer.interventions == [RemoveTokens([3]), carried]
    explorer.interventions = []
    assert (explorer.session._intervened, explorer.session.shown) == (b"", "baseline")


def test_all_states_of_the_second_picture_give_its_answer_to_the_last_bit(two):
    _, own, other = two
    explorer = Explorer(own, other=other)
    for block in (0, 1, 3):
        explorer.interventions = PatchResidual(block, source="other")
        assert np.array_equal(after(explorer), other.output[0].numpy())


def test_a_patch_dragged_onto_itself_changes_nothing(two):
    _, own, _ = two
    explorer = Explorer(own)
    for carried in (PatchResidual(2, [6], source_token=6), PatchResidual(0, [6], source_token=6)):
        explorer.interventions = carried
        assert np.array_equal(after(explorer), own.output[0].numpy())
    explorer.other = own
    explorer.interventions = PatchResidual(2, [6], source="other", source_token=6)
    assert np.array_equal(after(explorer), own.output[0].numpy())


def test_the_second_picture_is_a_session_that_follows_the_first(two):
    space, own, other = two
    explorer = Explorer(own, other=other, class_name=own.class_names[2])
    session = explorer.other
    assert isinstance(session, Session)
    (entry,) = explorer.session._links
    assert entry["states"] is True
    assert entry["other"] == f"anywidget:{session.model_id}"
    assert {"class_index", "block", "reading"} <= set(entry["names"])
    assert not {"tokens", "shown"} & set(entry["names"])
    assert session.model_id in dependency_state([explorer])
    # A picture is traced with the same model; what was given before goes.
    picture = Image.new("RGB", (40, 40), "teal")
    explorer.other = picture
    direct = space.trace(picture).output[0]
    np.testing.assert_allclose(explorer.other.snapshot.arrays["output_logits"], direct, atol=1e-5)
    assert len(explorer.session._links) == 1
    assert session.comm is None
    explorer.other = None
    assert explorer.other is None
    assert explorer.session._links == []


def test_a_session_of_ones_own_as_second_picture_keeps_its_state(two):
    _, own, other = two
    second = Explorer(other)
    first = Explorer(own, other=second)
    assert first.other is second.session
    assert first.session._links[0]["names"] == []
    first.close()
    assert second.session.comm is not None
    with pytest.raises(ValueError, match="must be another session"):
        second.other = second


def test_what_was_carried_goes_with_its_picture(two):
    space, own, other = two
    explorer = Explorer(own, other=other)
    carried = PatchResidual(2, [5], source="other", source_token=7)
    explorer.interventions = carried
    before = after(explorer)
    explorer.other.image = Image.new("RGB", (40, 40), "teal")
    assert explorer.interventions == []
    explorer.interventions = carried
    assert not np.array_equal(after(explorer), before)
    explorer.other.snapshot = other
    explorer.interventions = carried
    assert np.array_equal(after(explorer), before)
    explorer.other = None
    assert explorer.interventions == []
    # Those that name no second picture stay.
    explorer.other = other
    explorer.interventions = RemoveTokens([3])
    explorer.other = None
    assert explorer.interventions == [RemoveTokens([3])]
    # Another first picture keeps the second; one of another model does not.
    explorer.other = other
    explorer.image = Image.new("RGB", (40, 40), "teal")
    explorer.interventions = carried
    explorer.session.snapshot = space.trace(torch.ones(1, 3, 32, 32))
    explorer.interventions = carried
    explorer.session.snapshot = tiny_vit(depth=2).trace(torch.zeros(1, 3, 32, 32))
    assert explorer.other is None


def test_states_that_do_not_fit_are_refused_in_words(two):
    _, own, other = two
    explorer = Explorer(own, other=other)
    kept = explorer.other
    for given, message in (
        (
            tiny_vit(depth=2).trace(torch.zeros(1, 3, 32, 32)),
            r"\(blocks, tokens, width\) = .* like the model, got \(2, ",
        ),
        (tiny_vit(img_size=48).trace(torch.zeros(1, 3, 48, 48)), "like the model, got"),
        (tiny_vit(img_size=(16, 64)).trace(torch.zeros(1, 3, 16, 64)), "grid of 4 x 4 patches, got 2 x 8"),
        (Snapshot.unpack(other.snapshot().pack()), r"snapshot from a file .* other=space.trace"),
    ):
        with pytest.raises(ValueError, match=message):
            explorer.other = given
        assert explorer.other is kept
    with pytest.raises(RuntimeError, match="needs the model"):
        Explorer(synthetic("all"), other=other)
    with pytest.raises(ValueError, match="not computed yet after block 1; take source_block of at most 1"):
        PatchResidual(1, [5], source_block=2, source_token=7)
    with pytest.raises(ValueError, match=r"source_block must be in 0\.\.3, got 4"):
        explorer.interventions = PatchResidual(2, [5], source="other", source_block=4)
    with pytest.raises(ValueError, match="other=trace"):
        explorer.interventions = PatchResidual(2, [5], source=other)
    explorer.other = None
    with pytest.raises(ValueError, match=r"second picture, which is missing: .* explorer\.other = "):
        explorer.interventions = PatchResidual(2, [5], source="other")
    for name in ("source_block", "target_block"):
        with pytest.raises(traitlets.TraitError, match=rf"{name} must be in 0\.\.3"):
            setattr(explorer.session, name, 4)


def test_pins_with_states_of_the_second_picture_are_saved_and_opened_again(two, tmp_path):
    _, own, other = two
    pins = {"carried": PatchResidual(2, [5], source="other", source_token=7)}
    explorer = Explorer(own, other=other, pins=pins)
    page = export_html(explorer, tmp_path / "page.html", progress=False)
    assert page.nbytes > 0
    again = Explorer(own, other=other, pins=explorer.pins)
    assert again.pins == {"carried": [pins["carried"]]}
    with pytest.raises(ValueError, match="second picture, which is missing"):
        export_html(Explorer(own, pins=pins), tmp_path / "page.html", progress=False)


def test_a_second_picture_is_uploaded(two, monkeypatch):
    space, own, _ = two
    session = Session(own)
    sent = []
    monkeypatch.setattr(session, "send", lambda content, buffers=None: sent.append(content))
    buffer = io.BytesIO()
    Image.new("RGB", (50, 30), "crimson").save(buffer, "PNG")
    message = {"type": "request", "id": 1, "kind": "other", "params": {"name": "red.png"}}

    async def ask(*buffers) -> None:
        session._on_message(session, message, list(buffers))
        await asyncio.gather(*session._requests.tasks.values())

    asyncio.run(ask(memoryview(buffer.getvalue())))
    assert sent[-1]["ok"] is True
    assert session.other.snapshot.meta["image"]["name"] == "red.png"
    direct = space.trace(Image.new("RGB", (50, 30), "crimson")).output[0]
    np.testing.assert_allclose(session.other.snapshot.arrays["output_logits"], direct, atol=1e-5)
    asyncio.run(ask())
    assert "no picture came" in sent[-1]["error"]["message"]
