"""The translator lens against scikit-learn's ridge regression, and its own cross-validation by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitting.test_jacobian_lens import FAMILIES, double
from sklearn.linear_model import Ridge
from tiny_models import images_for

from classspace_widgets.fitting import LensSums, fit_lens
from classspace_widgets.fitting.translator import PENALTIES
from classspace_widgets.points import Point


def by_sklearn(x, y, penalty):
    """Ridge of targets on tokens ``[B, t, D]`` that share their picture's weight, with our relative penalty."""
    flat = x.reshape(-1, x.shape[-1]).numpy()
    wanted = np.repeat(y.numpy(), x.shape[1], axis=0)
    scale = np.var(flat, axis=0).mean() * len(flat)
    model = Ridge(alpha=penalty * scale, solver="cholesky").fit(flat, wanted)
    return model


@pytest.mark.parametrize("family", ["cls", "mean", "registers"])
@pytest.mark.parametrize("classes", [5, 17])
def test_maps_are_ridge_regressions_with_the_cross_validated_penalty(family, classes):
    space = double(**FAMILIES[family], num_classes=classes)
    images = images_for(space, 12).double()
    lens = fit_lens(space, "translator", images, batch_size=5)
    trace = space.trace(images)
    prefix = len(trace.prefix)
    y = trace.output
    if classes > 12:
        pooled = trace.stream("residual", 2)
        pooled = pooled[:, 0] if trace.pooling == "token" else pooled[:, prefix:].mean(1)
        centred = pooled - pooled.mean(-1, keepdim=True) if space.lens.centred else pooled
        y = centred / space.lens.sigma(pooled).unsqueeze(-1)
    for n in range(1, 4):
        stream = trace.stream("mid" if n % 2 else "residual", -(-n // 2))
        for q in range(prefix + 1):
            x = stream[:, q : q + 1] if q < prefix else stream[:, prefix:]
            losses = []
            for penalty in PENALTIES:
                loss = 0.0
                for a, b in ((0, 1), (1, 0)):
                    fitted = by_sklearn(x[a::2], y[a::2], penalty)
                    test = x[b::2]
                    answer = fitted.predict(test.reshape(-1, 12).numpy()).reshape(len(test), test.shape[1], -1)
                    loss += float(((answer - y[b::2, None].numpy()) ** 2).sum(-1).mean())
                losses.append(loss)
            model = by_sklearn(x, y, PENALTIES[int(np.argmin(losses))])
            weights, bias = torch.as_tensor(model.coef_), torch.as_tensor(model.intercept_)
            if classes > 12:
                weights, bias = space.lens.folded @ weights, space.lens.folded @ bias + space.lens.offset
            assert torch.allclose(lens.weights[n, q], weights, atol=1e-7), (n, q)
            assert torch.allclose(lens.offsets[n, q], bias, atol=1e-7), (n, q)


def test_parts_of_the_pictures_add_up_however_they_are_cut():
    space = double()
    images = images_for(space, 10).double()
    whole, pieces, first, second = (LensSums.start(space, "translator") for _ in range(4))
    whole.update(images)
    for part in (images[:3], images[3:4], images[4:]):
        pieces.update(part)
    first.update(images[:4])
    second.update(images[4:])
    for other in (pieces, first.merge(second)):
        for name in ("weights", "offsets", "error"):
            pair = getattr(other.lens(), name), getattr(whole.lens(), name)
            assert torch.allclose(*pair, atol=1e-8, equal_nan=True), name


def test_a_token_that_never_changes_decodes_to_the_mean_answer():
    space = double()
    images = images_for(space, 8).double()
    lens = fit_lens(space, "translator", images)
    trace = space.trace(images)
    scores = lens.logits(trace.stream("residual", 0), Point(0, "residual"), list(range(trace.n_tokens)))
    assert torch.allclose(scores[:, 0], trace.output.mean(0).expand(8, -1), atol=1e-9)


def test_the_output_token_of_the_last_block_is_read_by_the_classifier():
    space = double()
    images = images_for(space, 8).double()
    lens = fit_lens(space, "translator", images)
    trace = space.trace(images)
    scores = lens.logits(trace.stream("residual", 2), Point(2, "residual"), list(range(trace.n_tokens)))
    assert torch.allclose(scores[:, 0], trace.output, atol=1e-10)
    assert not scores.isnan().any()  # what can be decoded is defined everywhere
