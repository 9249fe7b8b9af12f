"""One convention for classes everywhere: K of all images, [B, K] of each, or labels: one of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.explain import importance
from classspace_widgets.explain.methods import METHODS
from classspace_widgets.lookup import chosen_classes, own_classes
from classspace_widgets.metrics.identifiability import identifiability
from core.families import build, pixels

LABELS = [3, 8]
"""Of two images: with as many classes as images, what is meant must be said."""


@pytest.fixture(scope="module")
def space():
    return ClassSpace(build("ViT"))


@pytest.fixture(scope="module")
def images(space):
    return pixels(space)


@pytest.fixture(scope="module")
def trace(space, images):
    return space.trace(images, attention=True, heads=True)


def logits(trace, **chosen):
    return trace.logits("mid", 2, **chosen)


def ranks(trace, **chosen):
    return trace.ranks("mid", 2, **chosen)


def streamed(trace, **chosen):
    return trace.space.stream_readings(pixels(trace.space), **chosen).logits[5]


def explained(trace, **chosen):
    return importance(trace, **chosen).maps.transpose(1, 2)


READINGS = [logits, ranks, streamed, explained]


@pytest.mark.parametrize("reading", READINGS)
def test_who_is_read_for_what(trace, reading):
    """Both meanings of as many classes as images, each against one class at a time."""
    every = torch.cat([reading(trace, classes=c) for c in range(trace.n_classes)], dim=-1)  # [B, T, C]
    assert every.shape[0] == 2
    of_all = reading(trace, classes=LABELS)
    assert torch.allclose(of_all, every[..., LABELS], atol=1e-5)
    own = torch.stack([every[b, :, [label]] for b, label in enumerate(LABELS)])
    assert not torch.allclose(own, of_all[..., :1].expand_as(own), atol=1e-5)
    names = [trace.class_names[label] for label in LABELS]
    for labels in (LABELS, tuple(LABELS), torch.tensor(LABELS), np.array(LABELS), names, [LABELS[0], names[1]]):
        assert torch.allclose(reading(trace, labels=labels), own, atol=1e-5)
    for column in ([[3], [8]], torch.tensor([[3], [8]]), np.array([[3], [8]]), [[name] for name in names]):
        assert torch.allclose(reading(trace, classes=column), own, atol=1e-5)
    three = reading(trace, classes=[[3, 1, 5], [8, 0, 3]])
    expected = torch.stack([every[0][:, [3, 1, 5]], every[1][:, [8, 0, 3]]])
    assert torch.allclose(three, expected, atol=1e-5)
    assert torch.allclose(reading(trace, labels=3), every[..., [3]], atol=1e-5)


def test_over_several_blocks_and_chosen_tokens(trace):
    own = trace.ranks("residual", None, tokens=[4, 0], labels=LABELS)
    assert own.shape == (3, 2, 2, 1)
    for block in range(3):
        for b, label in enumerate(LABELS):
            assert torch.equal(own[block, b, :, 0], trace.ranks("residual", block, label, tokens=[4, 0])[b, :, 0])


def test_identifiability_reads_what_ranks_read(trace):
    own = trace.ranks("residual", None, labels=LABELS)[..., 0]
    assert torch.equal(m.class_identifiability(trace, LABELS), identifiability(own, trace.n_classes))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_each_images_own_class(trace, method):
    found = importance(trace, labels=LABELS, method=method)
    assert found.classes.tolist() == [[3], [8]]
    both = importance(trace, LABELS, method=method)
    assert both.classes.tolist() == [LABELS] * 2
    for b in range(2):
        assert torch.allclose(found.maps[b, 0], both.maps[b, b], atol=1e-6)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("chosen", "error", "words"),
    [
        ({"classes": 3, "labels": 3}, ValueError, "not both"),
        ({"classes": []}, ValueError, "classes is empty"),
        ({"classes": [[3, 1]]}, ValueError, r"\[B, K\] with B=2, got 1 rows of 2"),
        ({"classes": [[3], [1, 2]]}, ValueError, r"\[B, K\] with B=2, got 2 rows of 1 or 2"),
        ({"classes": [[3], 1]}, ValueError, r"\[B, K\] with B=2"),
        ({"classes": [[], []]}, ValueError, r"\[B, K\] with B=2, got 2 rows of 0"),
        ({"classes": torch.tensor([[3], [12]])}, ValueError, r"class must be in 0..11, got 12"),
        ({"classes": torch.tensor([12])}, ValueError, r"class must be in 0..11, got 12"),
        ({"classes": torch.tensor([-1])}, ValueError, r"class must be in 0..11, got -1"),
        ({"classes": torch.tensor([2.0])}, TypeError, "got float"),
        ({"classes": torch.tensor([True, False])}, TypeError, "got bool"),
        ({"classes": torch.zeros(2, 1, 1, dtype=torch.long)}, TypeError, "got list"),
        ({"labels": [3, 8, 1]}, ValueError, "B=2 of them, got 3"),
        ({"labels": []}, ValueError, "B=2 of them, got 0"),
        ({"labels": torch.tensor([[3], [8]])}, ValueError, r"got 2 rows of 1; try labels.squeeze\(1\)"),
        ({"labels": torch.eye(12)[LABELS]}, ValueError, r"got 2 rows of 12; of one-hot .* labels.argmax\(1\)"),
        ({"labels": [3, 12]}, ValueError, "class must be in 0..11, got 12"),
        ({"labels": [3, "klass 8"]}, ValueError, "no class is called 'klass 8'; close matches: class 8"),
    ],
)  # fmt: skip
def test_classes_that_say_nothing(trace, reading, chosen, error, words):
    with pytest.raises(error, match=words):
        reading(trace, **chosen)


def test_nothing_chosen(trace):
    assert logits(trace).shape[-1] == ranks(trace).shape[-1] == trace.n_classes
    assert importance(trace).classes.tolist() == trace.output.argmax(dim=1, keepdim=True).tolist()
    with pytest.raises(ValueError, match=r"no class to read: give classes= .* or labels="):
        trace.space.stream_readings(pixels(trace.space))


def test_what_reads_the_same_classes_of_all_images_says_so(trace):
    for ask in (
        lambda: m.contributions(trace, [[3], [8]]),
        lambda: m.direct_by_head(trace, 1, torch.tensor([[3], [8]])),
        lambda: trace.class_indices([[3], [8]]),
    ):
        with pytest.raises(ValueError, match=r"the same classes are read of all images, .* not \[B, K\]; give all"):
            ask()
    both = m.contributions(trace, LABELS).values  # [K, N, B, T]
    for b, label in enumerate(LABELS):
        assert torch.allclose(both[b, :, b], m.contributions(trace, label).values[0, :, b])


def test_in_words():
    names = ("cat", "dog", "owl")
    assert chosen_classes(names, None) is None
    assert chosen_classes(names, range(2)) == [0, 1]
    assert chosen_classes(names, "owl", images=2) == [2]
    assert chosen_classes(names, [range(2), (2, "cat")], images=2) == [[0, 1], [2, 0]]
    assert own_classes(names, ["owl"], 3) == [2, 2, 2]
    assert own_classes(names, np.array(["dog", "owl"]), 2) == [1, 2]


def test_top_classes_have_names(trace):
    found = trace.top_k(3, "mid", [1, 2], tokens=[0, 4])
    values, classes = found
    assert torch.equal(values, found.logits)
    assert found.names.shape == classes.shape == (2, 2, 2, 3)
    for place in np.ndindex(2, 2, 2, 3):
        assert found.names[place] == trace.class_names[int(classes[place])]
    one = trace.top_k(2, tokens=[1])
    assert repr(one) == (
        f"TopK(float32 [2, 1, 2]; first: {one.names[0, 0, 0]} {one.logits[0, 0, 0]:.1f}, "
        f"{one.names[0, 0, 1]} {one.logits[0, 0, 1]:.1f})"
    )
    assert repr(trace.top_k(2, tokens=[])) == "TopK(float32 [2, 0, 2])"
