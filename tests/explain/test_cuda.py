"""The same numbers on a GPU."""

from __future__ import annotations

import pytest
import torch
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.causal import sweep_tokens
from classspace_widgets.explain import importance, perturbation
from classspace_widgets.interventions import Ablate, KnockOutAttention, PatchResidual, RemoveTokens, run_with

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture
def both():
    space = tiny_vit()
    return space, ClassSpace(tiny_vit().model, device="cuda")


def test_interventions_and_sweeps(both):
    images = images_for(both[0])
    interventions = [
        RemoveTokens(tokens=[4, 5]),
        KnockOutAttention("self_only", blocks=1),
        KnockOutAttention("no_cls", blocks=2, renormalise=True),
        Ablate("head", heads=1),
        PatchResidual(2, tokens=[6], source=(0, 7)),
    ]
    results = [run_with(space, images, interventions).cpu() for space in both]
    torch.testing.assert_close(results[0], results[1], rtol=1e-2, atol=1e-3)
    for mode in ("knock out", "remove"):
        sweeps = [sweep_tokens(space, images[:1], [1, 2], mode=mode).effect.cpu() for space in both]
        torch.testing.assert_close(sweeps[0], sweeps[1], rtol=1e-2, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("method", ["gradient", "direct", "chefer", "rollout", "attention"])
def test_importance(both, method):
    images = images_for(both[0])
    maps = [importance(space, [1, 2], images=images, method=method).maps.cpu() for space in both]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-2, atol=1e-3)


def test_perturbation(both):
    images, scores = images_for(both[0]), torch.randn(2, 16)
    curves = [perturbation(space, images, [1, 2], scores).probability["negative"].cpu() for space in both]
    torch.testing.assert_close(curves[0], curves[1], rtol=1e-2, atol=1e-3)
