"""The same numbers on a GPU as on the CPU, for every family and every kind of computation.

``CLASSSPACE_CUDA_TESTS_ON=cpu python -m pytest -m cuda tests/device`` rehearses these tests where there is no GPU: both sides
then run on the CPU.
"""

from __future__ import annotations

import copy
import os
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from core.families import POOLED, available, build, build_double, pixels

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.causal import sweep_heads, sweep_tokens
from classspace_widgets.data import ArrayDataset
from classspace_widgets.explain import importance, perturbation
from classspace_widgets.explain.methods import METHODS
from classspace_widgets.interventions import (
    Ablate,
    AddVector,
    KnockOutAttention,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
    run_with,
)
from classspace_widgets.memories import value_vectors
from classspace_widgets.probing import collect_sums
from classspace_widgets.studies import Execution, run_study
from classspace_widgets.training.photos.data import Photographs
from classspace_widgets.training.photos.train import Recipe, Run
from device.models import FAMILIES

DEVICE = os.environ.get("CLASSSPACE_CUDA_TESTS_ON", "cuda")

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="no CUDA device; CLASSSPACE_CUDA_TESTS_ON=cpu rehearses",
    ),
]

EXACT = {"rtol": 1e-7, "atol": 1e-7}
"""Of float64 on both sides."""

CLOSE = {"rtol": 1e-3, "atol": 1e-3}
"""Of float32 on both sides, whose sums have other orders."""

OTHERS = [name for name in FAMILIES if name not in available and name not in POOLED]


def both(model, **options):
    """The same model on the CPU and on the device."""
    return ClassSpace(model, **options), ClassSpace(copy.deepcopy(model), device=DEVICE, **options)


@contextmanager
def without_waiting():
    """Raises where the host waits for a GPU."""
    if DEVICE != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that not every wait is seen
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(autouse=True)
def full_float32():
    """Convolutions in TF32, torch's default on a GPU, would differ in the third digit."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def spaces():
    return both(build("ViT"))


def close(compute, spaces, **tolerance):
    """The same tensors from both."""
    here, there = (compute(space) for space in spaces)
    torch.testing.assert_close(there.cpu(), here, **(tolerance or CLOSE))


@pytest.mark.parametrize("family", [*available, *POOLED, *OTHERS])
def test_readings_of_every_family(family):
    model, options = FAMILIES[family]() if family in OTHERS else (build_double(family), {})
    here, there = both(model.double(), **options)
    images = pixels(here)
    a, b = here.stream_readings(images, [0, 2], k=2), there.stream_readings(images, [0, 2], k=2)
    assert b.logits.device.type == there.device.type
    assert torch.equal(a.ranks, b.ranks.cpu())
    assert torch.equal(a.top_classes, b.top_classes.cpu())
    torch.testing.assert_close(b.logits.cpu(), a.logits, **EXACT)
    close(lambda space: space.trace(images).logits(), (here, there), **EXACT)
    close(lambda space: space.trace(images).output, (here, there), **EXACT)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_fast_precisions_are_near(spaces, precision):
    images = pixels(spaces[0])
    exact, fast = spaces[0].stream_readings(images, [0]), spaces[1].stream_readings(images, [0], precision=precision)
    assert float((fast.ranks.cpu() - exact.ranks).abs().float().mean()) < 0.5  # of 12 classes


def test_a_pass_in_bfloat16():
    space = ClassSpace(build("ViT"), device=DEVICE, dtype=torch.bfloat16)
    assert space.stream_readings(pixels(space), [0]).logits.dtype == torch.float32


@pytest.mark.parametrize("family", ["ViT", "SigLIP, attention pooling"])
def test_streaming_does_not_wait(family):
    space = ClassSpace(build(family), device=DEVICE)
    images, labels = pixels(space), torch.zeros(2, 1, dtype=torch.long, device=DEVICE)
    space.stream_readings(images, labels)  # lays out weights
    with without_waiting():
        space.stream_readings(images, labels)


@pytest.mark.parametrize("family", ["ViT", "SigLIP, GAP", "SigLIP, attention pooling"])
@pytest.mark.parametrize("kind", ["jacobian", "translator"])
def test_lenses(family, kind):
    sides = both(build_double(family))
    images = pixels(sides[0], 12)
    here, there = (space.fit_lens(kind, images, batch_size=5, progress=False) for space in sides)
    assert there.weights.device.type == sides[1].device.type
    torch.testing.assert_close(there.weights.cpu(), here.weights, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there.offsets.cpu(), here.offsets, rtol=1e-5, atol=1e-5)
    for lens in (here, there):  # also one that is elsewhere
        close(
            lambda space, lens=lens: space.trace(images[:2]).logits("residual", 1, lens=lens),
            sides,
            equal_nan=True,
            **EXACT,
        )
        found = [space.stream_readings(images[:2], [0, 3], lens=lens).ranks.cpu() for space in sides]
        assert torch.equal(*found)


@pytest.mark.parametrize("reading", ["direct", "step", "paper"])
def test_contributions(spaces, reading):
    images = pixels(spaces[0])
    close(lambda space: m.contributions(space.trace(images), [1, 2], reading).values, spaces)


def test_heads_and_sources(spaces):
    images = pixels(spaces[0])
    close(lambda space: m.output_by_head(space.trace(images, attention=True, heads=True), [1]), spaces)
    close(lambda space: m.direct_by_source(space.trace(images, attention=True, heads=True), 1, [1], [0, 2]), spaces)


def test_interventions(spaces):
    images = pixels(spaces[0])
    for changes in (
        [
            RemoveTokens(tokens=[2]),
            KnockOutAttention("self_only", blocks=1),
            KnockOutAttention("no_cls", blocks=2, renormalise=True),
            Ablate("head", heads=1),
            PatchResidual(1, tokens=[3], source=(0, 4)),
        ],
        [AddVector(1, np.ones(spaces[0].adapter.width), tokens=[3]), ReplaceClassEmbedding(classes=[0], by=[1])],
    ):
        close(lambda space, changes=changes: run_with(space, images, changes), spaces)


def test_sweeps(spaces):
    image = pixels(spaces[0], 1)
    close(lambda space: sweep_heads(space, image, [1, 2], progress=False).effect, spaces)
    for mode in ("knock out", "remove"):
        close(
            lambda space, mode=mode: sweep_tokens(space, image, [1, 2], mode=mode, progress=False).effect,
            spaces,
            equal_nan=True,
            **CLOSE,
        )


@pytest.mark.parametrize("method", METHODS)
def test_importance(spaces, method):
    images = pixels(spaces[0])
    close(lambda space: importance(space, [1, 2], images=images, method=method).maps, spaces)


def test_perturbation(spaces):
    images, scores = pixels(spaces[0]), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    close(lambda space: perturbation(space, images, [1, 2], scores).probability["negative"], spaces)


def data():
    """Twelve pictures of 12 classes."""
    generator = np.random.default_rng(0)
    return ArrayDataset(generator.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), np.arange(24) % 12)


def test_probes(spaces):
    sums = [collect_sums(space, data(), tokens=[0], batch_size=8, progress=False) for space in spaces]
    torch.testing.assert_close(sums[1].gram.cpu(), sums[0].gram, **CLOSE)
    solved = [one.solve(1.0).weights.cpu() for one in sums]
    torch.testing.assert_close(solved[1], solved[0], **CLOSE)


def test_memories(spaces):
    close(lambda space: value_vectors(space, 1).cosines, spaces)


def test_studies():
    results = [
        run_study(
            space, data(), ["accuracy", "identifiability", "residual_composition"],
            execution=Execution(batch_size=5), progress=False,
        )
        for space in both(build_double("ViT"))
    ]  # fmt: skip
    for name in ("accuracy", "identifiability", "residual_composition"):
        here, there = (result[name].table for result in results)
        np.testing.assert_allclose(there["value"], here["value"], atol=1e-9)


def test_a_study_under_autocast():
    space = ClassSpace(build("ViT"), device=DEVICE)
    result = run_study(
        space, data(), "accuracy", execution=Execution(batch_size=8, autocast=torch.bfloat16), progress=False
    )
    assert result["accuracy"].table["value"].between(0, 1).all()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="the optimizer Muon came with torch 2.9")
def test_recorded_steps_of_training_are_the_plain_ones(tmp_path):
    """Three steps are carried out as they are, then come recordings: of the first rate, and of another."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
    photographs = Photographs(pictures, np.arange(60) % 3, ("n01", "n02", "n03"))
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    recipe = Recipe(timm=sizes, batch=8, held_back=2)
    losses = []
    for record in (False, True):
        run = Run(recipe, photographs, tmp_path, device=DEVICE, record=record)
        losses.append([float(run.take_step(rate, 0.5, 0.7)) for rate in (1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert len(set(losses[0])) == 7
