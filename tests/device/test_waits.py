"""Every public computation runs on the device that the model is on, and waits for it no more often than stated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core.families import build

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.causal import sweep_heads, sweep_tokens
from classspace_widgets.explain import importance
from classspace_widgets.interventions import (
    Ablate,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
    run_with,
    trace_with,
)
from classspace_widgets.memories import recording_active, value_vectors
from classspace_widgets.studies import standard_studies
from classspace_widgets.studies.engine import read_batch
from device.pretend import CUDA, Waits, pretended_cuda

FAMILIES = ("ViT", "SigLIP, GAP", "DINOv2 with registers", "BEiT")


@pytest.fixture(params=FAMILIES, scope="module")
def space(request):
    model = build(request.param)
    with pretended_cuda():
        yield ClassSpace(model.to(CUDA), check=False)


@pytest.fixture
def pixels(space):
    return torch.empty(2, 3, *space.preprocessing.size, device=CUDA)


@pytest.fixture
def labels():
    return torch.zeros(2, dtype=torch.long, device=CUDA)


def devices(found) -> set[str]:
    """Devices of all tensors in a result."""
    if isinstance(found, torch.Tensor):
        return {str(found.device)}
    if isinstance(found, dict):
        found = found.values()
    elif not isinstance(found, (list, tuple)):
        found = [v for v in getattr(found, "__dict__", {}).values() if isinstance(v, (torch.Tensor, list, dict))]
    return set().union(*map(devices, found))


def waits(compute, budget: int = 0, *, stays: bool = True):
    """Run, and hold to the budget of waits and to the device."""
    with Waits() as counted:
        found = compute()
    assert counted.found.total() <= budget, dict(counted.found)
    assert not stays or devices(found) == {CUDA}
    return found


def test_the_count_sees_every_kind_of_wait(space):
    x = torch.empty(3, device=CUDA)
    for wait in (
        lambda: x.sum().item(),
        lambda: bool((x > 0).all()),
        lambda: x.cpu(),
        lambda: torch.empty(3).copy_(x),
        lambda: x.tolist(),
        lambda: x[x > 0],
        lambda: x.nonzero(),
        lambda: x.unique(dim=0),
        lambda: torch.allclose(x, x),
        lambda: torch.equal(x, x),
        lambda: x.masked_select(x > 0),
    ):
        with Waits() as counted:
            wait()
        assert counted.found.total() == 1, wait
    with Waits() as counted:
        (x + 1).where(x > 0, 0.0).sum()
        torch.empty(3).tolist()
        torch.empty(3).to(CUDA)
    assert not counted.found


def test_a_trace_and_its_readings(space, pixels):
    trace = waits(lambda: space.trace_pixels(pixels, attention=True, heads=True, keys=True))
    for compute in (
        lambda: trace.logits("mid", 1, classes=[1, 2], tokens=[0, 2]),
        lambda: trace.ranks("residual", None, [1]),
        lambda: trace.top_k(3),
        lambda: trace.readout(),
        lambda: [m.contributions(trace, [1, 2], reading).values for reading in ("direct", "step", "paper")],
        lambda: m.output_contributions(trace, [1]),
        lambda: m.direct_by_head(trace, 1, [1]),
        lambda: m.direct_by_source(trace, 1, [1], [0, 2]),
        lambda: m.class_identifiability(trace, [1, 2]),
        lambda: m.class_similarity_change(trace, [1, 2]),
        lambda: m.residual_composition(trace),
    ):
        waits(compute)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_streaming_never_waits(space, pixels, precision):
    """Nor is a picture made for display, which nobody looks at."""
    waits(lambda: space.stream_readings(pixels, [0, 1], precision=precision), budget=0)


@pytest.mark.parametrize("method", ["gradient", "direct", "rollout", "attention"])
def test_importance(space, pixels, method):
    if method == "gradient" and "BEiT" in space.name:
        pytest.skip("its importance is from autograd, which asks for a driver")
    waits(lambda: importance(space, [1, 2], images=pixels, method=method), budget=3)


def changes(space):
    """One intervention of every kind; those of tokens on the second image token."""
    token = len(space.adapter.prefix) + 1
    return {
        "remove": RemoveTokens(tokens=[token]),
        "mask": MaskTokens(tokens=[token]),
        "head": Ablate("head", heads=[1]),
        "mlp": Ablate("mlp", mode="mean"),
        "patch": PatchResidual(1, tokens=[token], source=(0, token + 1)),
        "classifier": ReplaceClassEmbedding(classes=[0], by=[1]),
        "no_cls": KnockOutAttention("no_cls"),
        "self_only": KnockOutAttention("self_only"),
    }


KINDS = ("remove", "mask", "head", "mlp", "patch", "classifier", "no_cls", "self_only")


@pytest.mark.parametrize("change", KINDS)
def test_interventions(space, pixels, change):
    if change == "no_cls" and not space.adapter.prefix:
        pytest.skip("no [CLS] to cut")
    budget = {"no_cls": 40, "self_only": 40, "remove": 2}.get(change, 1)
    waits(
        lambda: run_with(space, pixels, [changes(space)[change]]), budget=max(0, budget - 1)
    )  # no picture for display
    waits(lambda: trace_with(space, pixels, [changes(space)[change]]).output, budget=budget)


def test_sweeps(space, pixels):
    waits(lambda: sweep_heads(space, pixels[:1], 1, progress=False), budget=12, stays=False)
    waits(lambda: sweep_tokens(space, pixels[:1], 1, mode="remove", progress=False), budget=12, stays=False)


def test_memories(space, pixels):
    waits(lambda: value_vectors(space, 1).scores, budget=0)
    with recording_active(space) as active:
        waits(lambda: space.trace_pixels(pixels))
    assert devices(active) == {CUDA}


def test_one_batch_of_every_study(space, pixels, labels):
    studies = standard_studies()
    for study in studies:
        study.start(space)
    masks = torch.zeros(2, space.adapter.grid[0] * space.adapter.grid[1], dtype=torch.int8)
    needs = frozenset().union(*(study.needs for study in studies))
    found = waits(lambda: read_batch(space, pixels, labels.cpu(), masks, np.arange(2), needs=needs), 3, stays=False)
    for study in studies:
        waits(lambda study=study: study.update(found), budget=6, stays=False)
