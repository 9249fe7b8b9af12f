"""The kernel's half of the check of a front end; the browser's is tested in JupyterLab."""

from __future__ import annotations

from classspace_widgets import check_front_end


def test_values_and_messages_are_answered(monkeypatch):
    check = check_front_end()
    sent = []
    monkeypatch.setattr(type(check), "send", lambda _self, content, buffers=None: sent.append((content, buffers)))
    check._ping = 0.25
    assert check._pong == 0.25
    check._handle_custom_msg({"reverse": True}, [memoryview(bytes([1, 2, 3]))])
    check._handle_custom_msg("something else", [])
    assert sent == [({"reversed": True}, [bytes([3, 2, 1])])]
    assert "Python 3." in check._about
    check.report = "all works"
    assert repr(check) == "all works"
    partner = check._partner
    check.close()
    assert partner.comm is None
