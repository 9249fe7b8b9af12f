"""Sessions that keep their model for when the kernel is gone: what travels, and what a saved notebook holds."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_models import perturb, tiny_vit

from classspace_widgets import Explorer, Session
from classspace_widgets.capture.model import model_container
from classspace_widgets.export.front_end import STATIC
from classspace_widgets.export.saved import saved_form
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.snapshot import Snapshot

pytestmark = pytest.mark.skipif(not (STATIC / "engine.js").is_file(), reason="needs the built front end")


def picture() -> Image.Image:
    """One random picture."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def asked(session: Session, kind: str) -> tuple[dict[str, Any], list[bytes]]:
    """What the kernel sends when a view asks."""
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    session.send = lambda content, buffers=None: sent.append((content, list(buffers or [])))  # type: ignore[method-assign]
    session._requests.handle({"type": "request", "id": 1, "kind": kind, "params": {}}, [])
    (found,) = sent
    return found


def test_a_live_session_names_its_model_and_sends_it_when_asked():
    space = tiny_vit()
    trace = space.trace(picture())
    session = Session(trace, live=True)
    assert re.fullmatch("[0-9a-f]{16}", session._live)
    start = Snapshot.unpack(session._snapshot).arrays["start"]
    np.testing.assert_array_equal(start, trace.increments[0][0].numpy())
    content, buffers = asked(session, "model")
    assert content["ok"]
    assert buffers == [model_container(space)]
    content, _ = asked(session, "script engine")
    assert content["result"]["text"] == (STATIC / "engine.js").read_text(encoding="utf-8")
    # Another model has another name; a snapshot from a file has none.
    name = session._live
    other = tiny_vit()
    perturb(other.model, seed=5)
    session.snapshot = other.trace(picture())
    assert session._live not in (name, "")
    session.snapshot = Snapshot.unpack(trace.snapshot().pack())
    assert session._live == ""
    assert not asked(session, "model")[0]["ok"]


def test_other_sessions_carry_no_model():
    session = Session(tiny_vit().trace(picture()))
    assert session._live == ""
    assert "start" not in Snapshot.unpack(session._snapshot).arrays


def test_what_cannot_run_in_a_page_is_refused_with_the_reason():
    with pytest.raises(UnsupportedModelError, match="a norm acts inside its attention"):
        Explorer(tiny_vit(qk_norm=True).trace(picture()), live=True)
    with pytest.raises(ValueError, match="live=True needs the model at hand"):
        Explorer(Snapshot.unpack(tiny_vit().trace(picture()).snapshot().pack()), live=True)


def test_a_saved_notebook_keeps_the_model_of_a_live_session_alone():
    trace = tiny_vit().trace(picture(), attention=True, heads=True)
    live, plain = (
        saved_form(Explorer(trace, live=live), "page")[0]["application/javascript"] for live in (True, False)
    )
    assert "data-engine" in live
    assert "worker-src blob:" in live
    assert "data-engine" not in plain
    assert "worker-src" not in plain
