"""Where class logits stand, as snapshots carry it and a live kernel answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core.families import build, pixels
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace, metrics
from classspace_widgets.capture.live import LiveSource
from classspace_widgets.interventions import AddVector, trace_with
from classspace_widgets.snapshot import Snapshot
from classspace_widgets.snapshot.container import unpack
from classspace_widgets.snapshot.select import select_classes, select_streams

MODELS = {
    "vit": lambda: tiny_vit(reg_tokens=2),
    "gap": lambda: tiny_vit(global_pool="avg", class_token=False, fc_norm=True),
    "gap after norm": lambda: tiny_vit(global_pool="avg", fc_norm=False),
    "parallel": lambda: ClassSpace(build("Parallel attention and MLP")),
}


@pytest.mark.parametrize("payload", ["all", "classes", "increments"])
@pytest.mark.parametrize("model", MODELS)
def test_the_arrays_are_the_flow(model, payload, tmp_path):
    space = MODELS[model]()
    trace = space.trace(images_for(space) if model != "parallel" else pixels(space))
    made = trace.snapshot(image=1, payload=payload, classes=[0, 3], flow=True)
    made.save(tmp_path / "one.csnap")
    arrays, kept = Snapshot.load(tmp_path / "one.csnap").arrays, made.meta["classes"]["kept"]
    if model == "parallel":
        assert "adds attention and MLP together" in made.meta["model"]["flow_refused"]
        assert "flow" not in arrays
        return
    flow = metrics.flow(trace, kept)
    assert np.allclose(arrays["flow"], flow.values[:, 1].permute(2, 0, 1), atol=1e-6)
    assert np.allclose(arrays["flow_bias"], flow.bias[:, 1].T, atol=1e-6)
    total = arrays["flow"].sum(axis=-1) + arrays["flow_bias"]
    assert np.allclose(total, arrays["output_logits"][kept][:, None], atol=1e-3)
    fewer = select_classes(made, [kept[1]])
    assert np.array_equal(fewer.arrays["flow"], made.arrays["flow"][1:2])
    assert "flow" not in select_streams(fewer, ranks_only=True).arrays


def test_flow_travels_where_it_is_asked_for():
    space = tiny_vit()
    trace = space.trace(images_for(space)[:1])
    plain = trace.snapshot()
    assert "flow" not in plain.arrays
    changed = trace_with(space, trace, AddVector(2, torch.randn(24)))
    assert "An intervention changed" in changed.snapshot(flow=True).meta["model"]["flow_refused"]


def test_a_snapshot_says_whether_its_kernel_can_tell_and_if_not_why():
    space = tiny_vit()
    assert space.trace(images_for(space)[:1]).snapshot().meta["offers"] == ["flow"]
    parallel = MODELS["parallel"]()
    made = parallel.trace(pixels(parallel)[:1]).snapshot()
    assert "offers" not in made.meta
    assert "adds attention and MLP together" in made.meta["model"]["flow_refused"]


def answer(source, kind, **params):
    steps = source.answer(kind, params)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return unpack(end.value.part)


def test_a_kernel_answers_for_classes_that_do_not_travel():
    space = tiny_vit()
    trace = space.trace(images_for(space)[:1], attention=True, heads=True)
    expected = metrics.flow(trace, [5]).values[:, 0].permute(2, 0, 1).numpy()
    _, arrays = answer(LiveSource(trace, options={}), "flow", classes=[5])
    assert np.allclose(arrays["flow"], expected, atol=1e-6)
    assert set(arrays) == {"flow", "flow_bias"}
    _, arrays = answer(LiveSource(trace, options={}), "classes", classes=[5], rows=[0])
    assert "flow" not in arrays
    _, arrays = answer(LiveSource(trace, options={"flow": True}), "classes", classes=[5], rows=[0])
    assert np.allclose(arrays["flow"], expected, atol=1e-6)
