"""What objects say of themselves: short, true, and safe to show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from make_fixtures import synthetic
from PIL import Image
from tiny_models import tiny_vit

import classspace_widgets
from classspace_widgets.causal import sweep_heads
from classspace_widgets.explain import importance, perturbation
from classspace_widgets.interventions import KnockOutAttention, RemoveTokens
from classspace_widgets.memories import value_vectors
from classspace_widgets.metrics import contributions
from classspace_widgets.probing import collect_sums
from classspace_widgets.scenes import ScenesDataset, make_scene
from classspace_widgets.studies import Accuracy, Identifiability, run_study


@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    return tiny_vit()


@pytest.fixture(scope="module")
def trace(space):
    return space.trace([Image.new("RGB", (32, 32), c) for c in ("red", "blue")], attention=True, heads=[1])


def test_no_public_object_prints_numbers_by_the_page(space, trace):
    small = ScenesDataset(8, size=32)
    data = [(small[i][0], small[i][1] % space.n_classes) for i in range(8)]
    found = importance(trace)
    objects = [
        space, space.adapter, space.lens, trace, found, contributions(trace, 0), value_vectors(space, 1),
        space.stream_readings(trace.pictures[0], [0]), sweep_heads(space, Image.new("RGB", (32, 32)), 0), trace.snapshot(),
        perturbation(space, trace, [0, 1], found.scores[:, 0], kept=[1, 4]), small, make_scene(0),
        collect_sums(space, data), collect_sums(space, data).solve(1.0), run_study(space, data, "accuracy", progress=False),
    ]  # fmt: skip
    for thing in objects:
        said = repr(thing)
        assert type(thing).__name__ in said
        assert "tensor(" not in said
        assert "\n" not in said
        assert len(said) < 400, (len(said), said)


def test_a_space_and_a_trace_tell_what_they_are(space, trace):
    said = repr(space)
    for fact in (f"{len(space.adapter.blocks)} blocks", f"{space.n_classes} classes", "cpu", "float32"):
        assert fact in said
    best = trace.class_names[int(trace.output[0].argmax())]
    said = repr(trace)
    assert f"2 images, {trace.n_blocks} blocks, {trace.n_tokens} tokens" in said
    assert f"predicted {best}" in said
    assert f"attention of {trace.n_blocks} blocks and heads of 1 block)" in said


def test_html_shows_pictures_and_answers_and_names_are_text(space, trace):
    names = space.class_names
    marked = tuple(f"<b>{n}</b>" for n in names)
    try:
        space.class_names = marked
        shown = replace(trace, class_names=marked)._repr_html_()
        assert shown.count("<img ") == 2
        share = float(trace.output[1].softmax(-1).max())
        assert f"&lt;b&gt;{names[int(trace.output[1].argmax())]}&lt;/b&gt; {share:.1%}" in shown
        assert "<b>class" not in shown
        assert "&lt;b&gt;" in space._repr_html_()
    finally:
        space.class_names = names


def test_results_show_small_tables_with_class_names(space, trace):
    found = importance(trace, [1, 2])
    shown = {
        "contributions": contributions(trace, [1])._repr_html_(),
        "sweep": sweep_heads(space, Image.new("RGB", (32, 32)), 1)._repr_html_(),
        "values": value_vectors(space, 1)._repr_html_(),
        "readings": space.stream_readings(trace.pictures[0], [1])._repr_html_(),
        "curves": perturbation(space, trace, [0, 1], found.scores[:, 0], kept=[1, 4])._repr_html_(),
        "importance": found._repr_html_(),
    }
    for what, html in shown.items():
        assert len(html) < 40_000, what
        assert ("<table>" in html) or html.count("<img ") == trace.n_images, what
        assert what == "curves" or space.class_names[1] in html, what
    total = float(contributions(trace, [1]).total()[0, 0, 0])
    assert f"<td style='text-align:left'>{total:+.3f}</td>" in shown["contributions"]
    swept = sweep_heads(space, Image.new("RGB", (32, 32)), 1)
    at = int(swept.effect[0].abs().argmax())
    assert f"block {1 + at // swept.effect.shape[2]}, head {at % swept.effect.shape[2]}<" in shown["sweep"]
    last = int(space.stream_readings(trace.pictures[0], [1]).top_classes[-1, 0, 0, 0])
    assert space.class_names[last] in shown["readings"].split("<tr>")[-1]


def test_names_in_results_are_text(trace):
    named = replace(contributions(trace, [1]), class_names=("<b>a</b>",) * trace.n_classes)
    assert "&lt;b&gt;a&lt;/b&gt;" in named._repr_html_()
    assert "<b>a" not in named._repr_html_()
    unnamed = replace(contributions(trace, [1]), class_names=(), classes=())
    assert "the first class" in unnamed._repr_html_()


def test_studies_and_interventions_say_what_they_are():
    assert repr(Identifiability(mid=True, replicates=50)) == "Identifiability(mid=True, replicates=50)"
    assert repr(Accuracy()) == "Accuracy()"
    assert repr(RemoveTokens(mask=torch.eye(12) > 0)) == "RemoveTokens(mask=bool [12, 12])"
    assert repr(RemoveTokens(tokens=[5, 6], outside=True)) == "RemoveTokens(tokens=(5, 6), outside=True)"
    assert repr(KnockOutAttention("edges", readers=range(90))) == (
        "KnockOutAttention(kind='edges', readers=(0, ... 90 in all))"
    )


def test_a_snapshot_shows_its_still_picture():
    shown = synthetic("all")._repr_html_()
    assert shown.count("data:image/webp;base64,") == 1
    assert "Snapshot(" in shown


def test_a_scene_is_its_picture():
    scene = make_scene(3, size=32)
    assert scene._repr_png_().startswith(b"\x89PNG")
    assert scene.class_name in repr(scene)


def test_results_complete_their_keys(space):
    results = run_study(space, [(Image.new("RGB", (32, 32)), 0)], ["accuracy"], progress=False)
    assert results._ipython_key_completions_() == ["accuracy"]


def test_every_public_name_and_module_can_be_completed_and_reached():
    offered = dir(classspace_widgets)
    for name in classspace_widgets.__all__:
        assert name in offered
        assert getattr(classspace_widgets, name) is not None
    for name in ("scenes", "studies", "explain", "plots", "interventions"):
        assert name in offered
        assert getattr(classspace_widgets, name).__name__ == f"classspace_widgets.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        classspace_widgets.nothing
