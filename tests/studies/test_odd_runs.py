"""Runs in other precisions and states: overflow, autocast, threads of one process, damaged checkpoints, odd sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from core.families import build
from study_helpers import Pictures
from timm.models.vision_transformer import VisionTransformer
from tiny_models import PICTURES, perturb, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.data import DatasetError
from classspace_widgets.images.placing import PixelTransform
from classspace_widgets.memories import memory_atlas, most_activating
from classspace_widgets.probing import fit_probes, probe_accuracy
from classspace_widgets.studies import Execution, run_study
from classspace_widgets.studies.checkpoint import CheckpointError
from classspace_widgets.studies.explanation import ExplanationStudy


def test_an_overflowing_pass_does_not_count_as_rank_0():
    model = tiny_vit().model
    with torch.no_grad():
        model.blocks[0].mlp.fc2.weight *= 1e7
    space = ClassSpace(model, dtype=torch.float16, check=False)
    with pytest.raises(DatasetError, match=r"pictures \[0, 1, 2, 3\] gave NaN or infinite values in torch.float16"):
        run_study(space, Pictures(4), "accuracy", progress=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_overflows_stops_the_run(value):
    """The residual stream may be sound where the classifier's own numbers are not."""
    space = tiny_vit()

    def overflowing(_module, _inputs, output):
        return output.index_fill(1, torch.tensor([3]), value)

    hook = space.model.head.register_forward_hook(overflowing)
    try:
        with pytest.raises(DatasetError, match=r"pictures \[0, 1\] gave NaN or infinite values"):
            run_study(space, Pictures(2), "accuracy", progress=False)
    finally:
        hook.remove()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_precision(dtype):
    space, data = ClassSpace(tiny_vit().model, dtype=dtype), Pictures(12)
    run_study(space, data, [ExplanationStudy(steps=2), "token_removal"], progress=False)
    probes = fit_probes(space, Pictures(30), tokens=[0], penalty=10.0, progress=False)
    assert len(probe_accuracy(space, probes, data, progress=False))
    assert len(most_activating(space, data, 1, "mlp", [0], k=3, progress=False)) == 3
    assert memory_atlas(space, data, progress=False).meta["pictures"]["count"] == 12


def test_memories_are_those_of_evaluation_mode():
    model = perturb(
        VisionTransformer(
            img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7, pos_drop_rate=0.5
        )
    )
    model.pretrained_cfg = PICTURES
    space, data = ClassSpace(model), Pictures(5)

    def found():
        return most_activating(space, data, 1, "mlp", [0, 5], progress=False), memory_atlas(space, data, progress=False)

    table, atlas = found()
    model.train()
    again, other = found()
    pd.testing.assert_frame_equal(table, again)
    assert np.array_equal(atlas.arrays["coefficient"], other.arrays["coefficient"])
    assert all(module.training for module in model.modules())


def test_perturbed_passes_run_as_the_one_they_are_compared_with(monkeypatch):
    from classspace_widgets import interventions

    seen = []
    real = interventions.trace_with

    def watched(*args, **options):
        seen.append(torch.is_autocast_enabled("cpu"))
        return real(*args, **options)

    monkeypatch.setattr(interventions, "trace_with", watched)
    studies = ["attention_perturbation", "token_removal"]
    run_study(tiny_vit(), Pictures(4), studies, execution=Execution(autocast=torch.bfloat16), progress=False)
    assert seen
    assert all(seen)
    seen.clear()
    run_study(tiny_vit(), Pictures(4), studies, progress=False)
    assert seen
    assert not any(seen)


def test_threads_of_one_worker_do_not_get_into_each_other():
    distributed = pytest.importorskip("distributed")
    space, data = tiny_vit(depth=6, embed_dim=96), Pictures(32)
    studies = ["identifiability", "accuracy"]
    single = run_study(space, data, studies, execution=Execution(batch_size=2), progress=False)
    cluster = {"n_workers": 1, "threads_per_worker": 4, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(processes=False, **cluster) as running,
        distributed.Client(running) as client,
    ):
        found = run_study(space, data, studies, execution=Execution(batch_size=2, client=client), progress=False)
    for name in single:
        pd.testing.assert_frame_equal(found[name].table, single[name].table)


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_checkpoint_cut_short_is_named(tmp_path, share):
    path = tmp_path / "run.npz"
    run_study(tiny_vit(), Pictures(4), "accuracy", checkpoint=path, progress=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="is not a checkpoint of a study"):
        run_study(tiny_vit(), Pictures(4), "accuracy", checkpoint=path, resume=True, progress=False)


@pytest.mark.parametrize("size", [(91, 133), (133, 91), (64, 96), (20, 31)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_pictures_are_placed_as_a_trace_places_them_where_the_input_is_not_square(size, wrapped):
    from PIL import Image

    model = build("ViT, not square")
    space = ClassSpace(torch.nn.DataParallel(model) if wrapped else model)
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    assert torch.allclose(
        PixelTransform.of(space.preprocessing).pixels(picture), space.preprocess(picture)[0][0], atol=1e-6
    )
