"""Every public computation runs on the device that the model is on, and waits for it no more often than stated."""

from __future__ import annotations

from dataclasses import is_dataclass

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.causal import KnockOut, Patch, sweep_heads, sweep_tokens
from classspace_widgets.data import ArrayDataset
from classspace_widgets.explain import importance, perturbation
from classspace_widgets.explain.methods import METHODS
from classspace_widgets.fitting import LensSums
from classspace_widgets.interventions import (
    Ablate,
    AddVector,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
    run_with,
    trace_with,
)
from classspace_widgets.memories import recording_active, value_vectors
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.probing import LensScores, ProbeScores, collect_sums, probe_accuracy
from classspace_widgets.studies import (
    AttentionPerturbation,
    Execution,
    ExplanationStudy,
    TokenRemoval,
    lens_report,
    run_study,
    standard_studies,
)
from classspace_widgets.studies.engine import read_batch
from device.models import FAMILIES
from device.pretend import CUDA, Kernels, Waits, pretended_cuda

SOME = ("ViT", "SigLIP, GAP", "SigLIP, attention pooling")
"""One family of each kind of answer, for what the others have in common."""

some_families = pytest.mark.parametrize("space", SOME, indirect=True)


@pytest.fixture(params=FAMILIES, scope="module")
def space(request):
    model, options = FAMILIES[request.param]()
    with pretended_cuda():
        options = {name: value.to(CUDA) if name == "class_embedding" else value for name, value in options.items()}
        yield ClassSpace(model.to(CUDA), check=False, **options)


@pytest.fixture
def pixels(space):
    return torch.empty(2, 3, *space.preprocessing.size, device=CUDA)


@pytest.fixture
def labels():
    return torch.zeros(2, dtype=torch.long, device=CUDA)


@pytest.fixture
def pictures(space):
    """A data set of four pictures, whose label is always 0: nothing has values here."""
    height, width = space.preprocessing.size
    return ArrayDataset(np.zeros((4, height, width, 3), np.uint8), np.zeros(4, np.int64))


def devices(found) -> set[str]:
    """Devices of all tensors in a result."""
    if isinstance(found, torch.Tensor):
        return {str(found.device)}
    if isinstance(found, dict):
        found = found.values()
    elif is_dataclass(found):
        found = list(vars(found).values())
    elif not isinstance(found, (list, tuple)):
        return set()
    return set().union(*map(devices, found))


def waits(compute, budget: int = 0, *, uploads: int | None = 0, stays: bool = True):
    """Run, and hold to the budgets of waits and of copies to the device (None: not counted), and to the device."""
    with Waits() as counted:
        found = compute()
    assert counted.found.total() <= budget, dict(counted.found)
    assert uploads is None or counted.uploads.total() <= uploads, dict(counted.uploads)
    assert not stays or devices(found) == {CUDA}
    return found


def if_defined(compute, *budgets, **options):
    """`waits`, unless the computation is not defined for the model, which other tests check."""
    try:
        return waits(compute, *budgets, **options)
    except UnsupportedModelError:
        return None


@some_families
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
    for copy in (
        lambda: torch.tensor([1, 2], device=CUDA),
        lambda: torch.empty(3).to(CUDA),
        lambda: torch.empty(3).to(CUDA, non_blocking=True),
        lambda: x.copy_(torch.empty(3)),
        lambda: x[[0, 2]],
        lambda: x[torch.tensor([0, 2])],
    ):
        with Waits() as counted:
            copy()
        assert not counted.found
        assert counted.uploads.total() == 1, copy
    with Waits() as counted:
        (x + 1).where(x > 0, 0.0).sum()
        torch.empty(3).tolist()
        torch.empty(3).pin_memory().to(CUDA, non_blocking=True)
        x[torch.arange(2, device=CUDA)]
    assert not counted.found + counted.uploads


@some_families
def test_a_tensor_on_the_wrong_device_fails(space):
    with pytest.raises(RuntimeError, match="device"):
        torch.empty(3, device=CUDA) + torch.empty(3)
    with pytest.raises(AssertionError):
        waits(lambda: torch.empty(3))


def test_a_trace_and_its_readings(space, pixels):
    trace = waits(lambda: space.trace_pixels(pixels))
    kept = if_defined(lambda: space.trace_pixels(pixels, attention=True, heads=True, keys=True))
    for compute in (
        lambda: trace.logits("mid", 1, classes=[1, 2], tokens=[0, 2]),
        lambda: trace.ranks("residual", None, [1]),
        lambda: trace.ranks(),
        lambda: trace.top_k(3),
        lambda: trace.readout(),
        lambda: trace.answers(3),
        lambda: [m.contributions(trace, [1, 2], reading).values for reading in ("direct", "step", "paper")],
        lambda: m.output_contributions(trace, [1]),
        lambda: m.class_identifiability(trace, [1, 2]),
        lambda: m.class_similarity_change(trace, [1, 2]),
        lambda: m.residual_composition(trace),
        lambda: m.flow(trace, [1]),
        lambda: m.decision(trace),
        *(
            (
                lambda: m.direct_by_head(kept, 1, [1]),
                lambda: m.output_by_head(kept, [1]),
                lambda: m.direct_by_source(kept, 1, [1], [0, 2]),
                lambda: kept.key_coefficients(1),
            )
            if kept
            else ()
        ),
    ):
        if_defined(compute, uploads=UPLOADS)
    if_defined(lambda: trace.snapshot(classes=[1, 2]), budget=99, uploads=None, stays=False)


UPLOADS = 12
"""Small copies to the device, such as numbers of classes, that one reading of a trace may make."""


def test_one_picture_takes_few_kernels_more_than_its_pass():
    """Of one picture, launching kernels is what takes time."""
    with pretended_cuda(), Waits():
        space = ClassSpace(
            VisionTransformer(img_size=32, patch_size=8, embed_dim=64, depth=12, num_heads=4).to(CUDA), check=False
        )
        pixels, label = torch.empty(1, 3, 32, 32, device=CUDA), torch.zeros(1, 1, dtype=torch.long, device=CUDA)
        space.stream_readings(pixels, label)  # lays out weights
        with Kernels() as bare, torch.no_grad():
            space.model(pixels)
        with Kernels() as counted:
            space.stream_readings(pixels, label)
    assert counted.found.total() <= 1.6 * bare.found.total(), counted.found - bare.found


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_streaming_never_waits(space, pixels, labels, precision):
    """Nor is a picture made for display, which nobody looks at; classes go to the device once."""
    waits(lambda: space.stream_readings(pixels, [0, 1], precision=precision, k=2))
    waits(lambda: space.stream_readings(pixels, labels[:, None], precision=precision, k=2, chunk=1))


@pytest.fixture(scope="module")
def lenses(space):
    """A fitted lens of each kind."""
    pixels = torch.empty(8, 3, *space.preprocessing.size, device=CUDA)
    return {kind: waits(lambda kind=kind: fitted(space, kind, pixels), 16, uploads=None, stays=False) for kind in KINDS}


KINDS = ("jacobian", "translator")


def fitted(space, kind, pixels):
    sums = LensSums.start(space, kind)
    sums.update(pixels)
    return sums.lens()


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_a_lens_never_waits(space, pixels, kind):
    sums = LensSums.start(space, kind)
    waits(lambda: sums.update(pixels), stays=False)
    assert devices(sums.sums) == {CUDA}
    waits(lambda: sums.merge(sums), budget=1, uploads=None, stays=False)  # a hash of the model's weights, once


@pytest.mark.parametrize("kind", KINDS)
def test_reading_through_a_lens(space, pixels, labels, lenses, kind):
    lens = lenses[kind]
    assert {str(lens.weights.device), str(lens.offsets.device)} == {CUDA}
    trace = space.trace_pixels(pixels)
    for compute in (
        lambda: trace.logits("residual", 1, classes=[1, 2], lens=lens),
        lambda: trace.logits("attention", None, lens=lens),
        lambda: trace.ranks("residual", None, [1], lens=lens),
        lambda: trace.top_k(3, lens=lens),
        lambda: trace.readout("residual", 1, lens=lens),
    ):
        waits(compute, uploads=UPLOADS)
    waits(lambda: space.stream_readings(pixels, labels[:, None], lens=lens, k=2), uploads=1)


@some_families
def test_a_report_on_lenses(space, lenses, pictures):
    waits(
        lambda: lens_report(space, list(lenses.values()), pictures, promises=1, progress=False),
        budget=400,
        uploads=None,
        stays=False,
    )


@pytest.mark.parametrize("method", METHODS)
def test_importance(space, pixels, method):
    if_defined(lambda: importance(space, [1, 2], images=pixels, method=method, fallback="autograd").maps, 1, uploads=30)


@some_families
@pytest.mark.parametrize("loss", ["cross_entropy", "paper"])
def test_importance_by_other_losses(space, pixels, loss):
    if_defined(lambda: importance(space, [1, 2], images=pixels, loss=loss, fallback="autograd").maps, 1, uploads=30)


@some_families
def test_perturbation_curves(space, pixels):
    count = space.adapter.grid[0] * space.adapter.grid[1]
    scores = torch.empty(2, count, device=CUDA)
    if_defined(lambda: perturbation(space, pixels, [0, 1], scores, kept=[2, 1]), 2, uploads=80)


def changes(space):
    """Interventions of every kind; those of tokens on the second image token."""
    token, other = (
        len(space.adapter.prefix) + 1,
        space.trace_pixels(torch.empty(1, 3, *space.preprocessing.size, device=CUDA)),
    )
    return {
        "remove": RemoveTokens(tokens=[token]),
        "mask": MaskTokens(tokens=[token]),
        "head": Ablate("head", heads=[1]),
        "mlp": Ablate("mlp", mode="mean"),
        "resample": Ablate("attention", mode="resample", source=other),
        "patch": PatchResidual(1, tokens=[token], source=(0, token + 1)),
        "patch from another": PatchResidual(1, tokens=[token], source=other),
        "add": AddVector(1, np.ones(space.adapter.width), tokens=[token]),
        "classifier": ReplaceClassEmbedding(classes=[0], by=[1]),
        "no_cls": KnockOutAttention("no_cls"),
        "no_others": KnockOutAttention("no_others", renormalise=True),
        "self_only": KnockOutAttention("self_only"),
    }


CHANGES = (
    "remove", "mask", "head", "mlp", "resample", "patch", "patch from another", "add", "classifier", "no_cls", "no_others",
    "self_only",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_interventions(space, pixels, change):
    if change == "no_cls" and space.adapter.prefix[:1] != ("[CLS]",):
        pytest.skip("no [CLS] to cut")
    one = changes(space)[change]
    if_defined(lambda: run_with(space, pixels, [one]), uploads=40)
    if_defined(lambda: trace_with(space, pixels, [one]).output, budget=2, uploads=40)  # a picture for display


@some_families
def test_sweeps(space, pixels):
    one = space.trace_pixels(pixels[:1])
    for compute in (
        lambda: sweep_heads(space, pixels[:1], 1, progress=False),
        lambda: sweep_heads(space, pixels[:1], 1, mode="mean", measure="probability", progress=False),
        lambda: sweep_tokens(space, pixels[:1], 1, mode="remove", progress=False),
        lambda: sweep_tokens(space, pixels[:1], 1, mode=KnockOut(renormalise=True), progress=False),
        lambda: sweep_tokens(space, pixels[:1], 1, mode=Patch(one), progress=False),
    ):
        if_defined(compute, budget=3, uploads=60, stays=False)


@some_families
def test_memories(space, pixels):
    for sublayer in ("attention", "mlp"):
        vectors = if_defined(lambda sublayer=sublayer: value_vectors(space, 1, sublayer), stays=False)
        if vectors is not None:
            waits(
                lambda vectors=vectors: [vectors.scores, vectors.cosines, vectors.agreement(), vectors.top_class_ids(2)]
            )
            assert devices(vectors.top_values(2)) == {CUDA}
    try:
        with recording_active(space) as active:
            waits(lambda: space.trace_pixels(pixels))
    except UnsupportedModelError:
        return
    assert devices(active) == {CUDA}


@some_families
def test_probes(space, pictures, pixels, labels):
    tokens = len(space.adapter.prefix) + space.adapter.grid[0] * space.adapter.grid[1]
    sums = waits(lambda: collect_sums(space, pictures, batch_size=2, progress=False), uploads=None, stays=False)
    assert devices(sums) == {CUDA}
    probes = waits(sums.solve, budget=2 + len(sums.points), uploads=None, stays=False)
    assert devices([probes.weights, probes.bias]) == {CUDA}
    waits(
        lambda: probe_accuracy(space, probes, pictures, progress=False),
        budget=4 * len(sums.points) * 2,
        uploads=None,
        stays=False,
    )
    batch = read_batch(space, pixels, labels.cpu(), None, np.arange(2))
    assert probes.weights.shape[1] == tokens
    waits(lambda: ProbeScores(probes, block=1)(batch))
    if space.adapter.linear:
        waits(lambda: LensScores(block=1)(batch))


def every_study():
    """All of them, and those that run further passes."""
    return [
        *standard_studies(),
        AttentionPerturbation(),
        TokenRemoval(),
        ExplanationStudy(methods=["gradient", "rollout"], steps=2),
    ]


def test_one_batch_of_every_study(space, pixels, labels):
    studies = []
    for study in every_study():
        try:
            study.start(space)
        except UnsupportedModelError:
            continue
        studies.append(study)
    masks = torch.zeros(2, space.adapter.grid[0] * space.adapter.grid[1], dtype=torch.int8)
    needs = frozenset().union(*(study.needs for study in studies))
    found = waits(
        lambda: read_batch(space, pixels, torch.zeros(2).long(), masks, np.arange(2), needs=needs), 1, stays=False
    )
    for study in studies:
        further = "pixels" in study.needs
        if_defined(lambda study=study: study.read(found), budget=90 if further else 0, uploads=None, stays=False)
        if_defined(lambda study=study: study.update(found), budget=90 if further else 1, uploads=None, stays=False)


@some_families
def test_the_loop_of_a_study_waits_for_results_alone(space, pictures):
    """Pictures, labels and masks go to the device without waiting; what all studies count comes back in one transfer a batch."""
    names = ["accuracy", "identifiability", "place_difference", "residual_composition"]
    execution = Execution(batch_size=2, workers=1)
    count = Waits()
    with count:
        run_study(space, pictures, names, execution=execution, progress=False)
    once = {place for _, place in count.found if place.startswith("models/fingerprint")}  # the run's identity
    loop = {place: times for (_, place), times in count.found.items() if place not in once | {"a test"}}
    assert not [place for _, place in count.uploads if place.startswith(("data/", "space/", "images/"))], count.uploads
    batches = 2
    assert sum(loop.values()) == batches, loop
    assert sum(times for (_, place), times in count.found.items() if place in once) <= 1
