"""Multinomial logistic regression against scikit-learn, and its cross-validation against a slow one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classspace_widgets.fitting.logistic import PENALTIES, Validation, chosen, cross_validate, fit_logistic


def examples(n=60, width=12, classes=4, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, width, generator=generator)
    features = 5 + 3 * (centres[labels] + spread * torch.randn(n, width, generator=generator))
    return features, labels


def sklearn_fit(features, labels, penalty):
    """The same model by scikit-learn, of features that are scaled by hand."""
    linear = pytest.importorskip("sklearn.linear_model")
    x = features.double().numpy()
    mean = x.mean(axis=0)
    scale = np.sqrt(((x - mean) ** 2).mean())
    found = linear.LogisticRegression(C=1 / (len(x) * penalty), solver="newton-cg", tol=1e-9, max_iter=10_000)
    found.fit((x - mean) / scale, labels.numpy())
    weight = found.coef_ / scale
    return weight, found.intercept_ - weight @ mean


@pytest.mark.parametrize("penalty", [0.3, 0.003, 1e-4])
@pytest.mark.parametrize("width", [12, 200], ids=["more examples than features", "fewer"])
def test_weights_are_those_of_scikit_learn(penalty, width):
    features, labels = examples(width=width)
    weight, bias = fit_logistic(features, labels, 4, penalty)
    expected, intercept = sklearn_fit(features, labels, penalty)
    assert np.abs(weight.numpy() - expected).max() < 2e-3 * np.abs(expected).max()
    # A number added to every bias changes nothing.
    ours, theirs = bias - bias.mean(), intercept - intercept.mean()
    assert np.abs(ours.numpy() - theirs).max() < 5e-3 * np.abs(theirs).max()


def test_the_gradient_is_nothing_where_the_search_ends():
    features, labels = examples()
    penalty = 0.01
    weight, bias = fit_logistic(features, labels, 4, penalty)
    centred = features.double() - features.double().mean(dim=0)
    scale = centred.square().mean().sqrt()
    gradient = penalty * weight * scale
    for x, row, label in zip(centred / scale, features.double(), labels, strict=True):
        probabilities = (weight @ row + bias).softmax(dim=0)
        probabilities[label] -= 1
        gradient += torch.outer(probabilities, x) / len(labels)
    assert gradient.abs().max() < 1e-5


def test_cross_validation_is_that_of_a_slow_loop():
    features, labels = examples(n=48, spread=3.0)
    found = cross_validate(features, labels, 4, seed=3, show=False)
    assert found.folds == 5
    assert 3 <= len(found.loss) <= len(PENALTIES)
    from classspace_widgets.fitting.logistic import _folds

    fold = _folds(labels, 5, 3)
    for number in (0, 2, found.best):
        right = loss = 0.0
        for part in range(5):
            weight, bias = sklearn_fit(features[fold != part], labels[fold != part], found.penalties[number])
            for x, label in zip(features[fold == part].double().numpy(), labels[fold == part].tolist(), strict=True):
                logits = weight @ x + bias
                right += logits.argmax() == label
                loss -= logits[label] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert found.accuracy[number] == pytest.approx(right / 48, abs=1 / 48 + 1e-9)
        assert found.loss[number] == pytest.approx(loss / 48, abs=0.01)


@pytest.mark.parametrize("sizes", [(10, 10, 10), (7, 12, 31), (2, 2, 9)])
def test_every_part_has_its_share_of_every_class(sizes):
    from classspace_widgets.fitting.logistic import _folds

    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    count = min(5, *sizes)
    fold = _folds(labels, count, 0)
    for own, size in enumerate(sizes):
        held = torch.bincount(fold[labels == own], minlength=count)
        assert held.max() - held.min() <= 1
        assert held.sum() == size
        assert held.max() < size
    assert not torch.equal(fold, _folds(labels, count, 1)) or sizes == (2, 2, 9)


def test_noise_gets_a_strong_penalty_and_signal_a_weaker_one():
    features, labels = examples(n=80, spread=0.8)
    signal = cross_validate(features, labels, 4, show=False)
    noise = cross_validate(torch.randn(80, 12, generator=torch.Generator().manual_seed(1)), labels, 4, show=False)
    assert signal.penalties[signal.best] < noise.penalties[noise.best]
    assert signal.accuracy[signal.best] > 0.9
    assert noise.accuracy[noise.best] < 0.5


def test_the_better_features_are_chosen_and_the_first_of_equals():
    good, bad = Validation((1.0,), (0.9,), (0.3,), 5), Validation((1.0,), (0.8,), (0.5,), 5)
    assert chosen([bad, good]) == 1
    assert chosen([good, good]) == 0
