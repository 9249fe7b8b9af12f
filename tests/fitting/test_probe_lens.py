"""The probe lens against scikit-learn's ridge regression and against `probing`; labels, resumption and warnings of a fit."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from fitting.test_jacobian_lens import FAMILIES, double
from fitting.test_translator_lens import by_sklearn
from tiny_models import images_for, tiny_vit

from classspace_widgets.fitting import LensSums, fit_lens
from classspace_widgets.fitting.translator import PENALTIES
from classspace_widgets.points import Point
from classspace_widgets.probing import collect_sums

# Noise says nothing of labels that were made up, and the fits below say so.
few = pytest.mark.filterwarnings("ignore:.* have a standard error as long as the map itself")
LABELS = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


@few
@pytest.mark.parametrize("family", ["cls", "mean", "registers"])
def test_maps_are_ridge_regressions_on_the_labels(family):
    space = double(**FAMILIES[family], num_classes=5)
    images = images_for(space, 12).double()
    lens = fit_lens(space, "probe", images, labels=LABELS, batch_size=5)
    assert lens.defined.all()
    assert not lens.classifier.any()
    trace = space.trace(images)
    prefix, y = len(trace.prefix), torch.eye(5, dtype=torch.float64)[LABELS]
    for n in range(1, 5):
        stream = trace.stream("mid" if n % 2 else "residual", -(-n // 2))
        for q in range(prefix + 1):
            x = stream[:, q : q + 1] if q < prefix else stream[:, prefix:]
            losses = []
            for penalty in PENALTIES:
                loss = 0.0
                for a, b in ((0, 1), (1, 0)):
                    answer = by_sklearn(x[a::2], y[a::2], penalty).predict(x[b::2].reshape(-1, 12).numpy())
                    loss += float(((answer.reshape(6, -1, 5) - y[b::2, None].numpy()) ** 2).sum(-1).mean())
                losses.append(loss)
            model = by_sklearn(x, y, PENALTIES[int(np.argmin(losses))])
            assert torch.allclose(lens.weights[n, q], torch.as_tensor(model.coef_), atol=1e-7), (n, q)
            assert torch.allclose(lens.offsets[n, q], torch.as_tensor(model.intercept_), atol=1e-7), (n, q)


def test_its_sums_are_those_of_probing():
    """Probes of `probing` for all image tokens together rest on the same sums, but for the weight of a picture."""
    space = tiny_vit()
    images = images_for(space, 14)
    labels = torch.arange(14) % 7
    fit = LensSums.start(space, "probe")
    fit.update(images, labels)

    class Data:
        def __len__(self):
            return 14

        def __getitem__(self, n):
            return images[n], int(labels[n])

    theirs = collect_sums(space, Data(), per_position=False, tokens=range(1, 17), progress=False)
    for n, block in ((0, 0), (2, 1), (6, 3)):
        gram = theirs.gram[block, 0] / 16
        assert torch.allclose(fit.sums.gram[:, n, 1].sum(0), gram, rtol=1e-4, atol=1e-3)
        cross = theirs.cross[block, 0] / 16
        assert torch.allclose(fit.sums.cross[:, n, 1].sum(0), cross, rtol=1e-4, atol=1e-3)


@few
def test_scores_are_read_where_a_jacobian_has_none(tmp_path):
    space = tiny_vit()
    images = images_for(space, 14)
    lens = fit_lens(space, "probe", [(image, n % 7) for n, image in enumerate(images)])
    scores = space.trace(images).logits("residual", 3, lens=lens)
    assert not scores.isnan().any()
    # Scores of a regression on shares sum to 1, as the shares do.
    assert torch.allclose(scores.sum(-1), torch.ones(()), atol=1e-3)
    lens.save(tmp_path / "probe")
    assert type(lens).load(tmp_path / "probe").kind == "probe"
    assert lens.question.startswith("what can be decoded here")


class Named:
    """A data set with the model's classes in another order."""

    def __init__(self, images):
        self.images = images
        self.class_names = [f"class {n}" for n in range(6, -1, -1)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, n):
        return {"image": self.images[n], "label": 6 - n % 7}


@few
def test_labels_are_matched_by_name():
    space = tiny_vit()
    images = images_for(space, 14)
    expected = fit_lens(space, "probe", images, labels=[n % 7 for n in range(14)])
    for found in (
        fit_lens(space, "probe", Named(images)),
        fit_lens(space, "probe", images, labels=[f"class {n % 7}" for n in range(14)]),
    ):
        assert torch.allclose(found.weights, expected.weights)


def test_labels_that_do_not_fit_are_refused():
    space = tiny_vit()
    images = images_for(space, 8)
    with pytest.raises(ValueError, match="a probe needs the class of every picture; give pairs"):
        fit_lens(space, "probe", images)
    with pytest.raises(ValueError, match="labels must be those of all 8 pictures, got 3"):
        fit_lens(space, "probe", images, labels=[0, 1, 2])
    with pytest.raises(ValueError, match="class"):
        fit_lens(space, "probe", images, labels=[9] * 8)
    with pytest.raises(ValueError, match="a probe needs labels"):
        LensSums.start(space, "probe").update(images)
    with pytest.raises(ValueError, match="kind must be one of"):
        fit_lens(space, "logit", images)


def test_a_fit_that_goes_on_knows_its_pictures_again(tmp_path):
    space = tiny_vit()
    images = images_for(space, 12)
    part = tmp_path / "fit.part"
    begun = LensSums.start(space, "translator")
    begun.update(images[:5])
    begun.save(part)
    for others, which in ((images.flip(0), 0), (torch.cat([images[:4], images[5:]]), 4)):
        with pytest.raises(ValueError, match=re.escape(f"picture {which} is not the one that was seen")):
            fit_lens(space, "translator", others, unfinished=part)
    found = fit_lens(space, "translator", images, unfinished=part)
    assert torch.allclose(found.weights, fit_lens(space, "translator", images).weights, atol=1e-5)
    assert not part.exists()


def test_maps_that_other_pictures_would_change_are_warned_about():
    space = tiny_vit(num_classes=5)
    images = images_for(space, 10)
    noise = np.random.default_rng(0).integers(0, 5, 10).tolist()
    with pytest.warns(
        UserWarning, match=r"have a standard error as long as the map itself, such as that of .* tokens at"
    ):
        lens = fit_lens(space, "probe", images, labels=noise)
    assert float(lens.error.nan_to_num().max()) >= 1
    score = lens.logits(space.trace(images).stream("residual", 1), Point(1, "residual"), range(17))
    assert score.isfinite().all()
