"""Token importance on its way to the views: by block and head, as `explain.importance` has it."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import images_for, tiny_vit

from classspace_widgets.explain import importance
from classspace_widgets.snapshot.container import unpack
from classspace_widgets.state import CHOICES


@pytest.fixture(
    scope="module", params=[{}, {"global_pool": "avg", "class_token": False, "fc_norm": True}], ids=["cls", "gap"]
)
def trace(request):
    space = tiny_vit(**request.param)
    return space.trace(images_for(space, 1), attention=True, heads=True)


def ask(trace, method):
    steps = trace.snapshot().source.answer("importance", {"method": method, "classes": [4, 1]}, [])
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return unpack(stop.value.part)


@pytest.mark.parametrize("method", CHOICES["importance"])
def test_shares_are_those_of_explain_and_add_up(trace, method):
    split = method in ("gradient", "direct")
    meta, arrays = ask(trace, method)
    found = importance(trace, [4, 1], method=method, heads=split)
    assert meta["importance"] == {"method": method, "classes": [4, 1], "signed": found.signed}
    shares = arrays["importance"]
    n = trace.n_tokens
    # The pooled token, where there is one, has no importance of its own.
    assert shares.shape[-1] == trace.snapshot().arrays["sigma"].shape[1]
    assert np.isnan(shares[..., n:]).all()
    np.testing.assert_allclose(shares[..., :n].sum(axis=(1, 2)), found.maps[0], atol=1e-5, rtol=1e-4)
    if split:
        assert shares.shape[:3] == (2, 3, 3)
        np.testing.assert_allclose(shares[..., :n], found.by_head[0], atol=1e-5, rtol=1e-4)
    else:
        assert shares.shape[:3] == (2, 1, 1)


def test_methods_of_the_session_are_those_that_exist():
    from classspace_widgets.explain.methods import METHODS

    assert set(CHOICES["importance"]) == set(METHODS)
