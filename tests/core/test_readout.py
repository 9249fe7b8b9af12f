"""How an answer is pooled, against loops over pictures and tokens that apply norm and classifier one vector at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from classspace_widgets.lens import ClassLens, Readout
from classspace_widgets.lens.readout import LINEAR_POOLINGS, POOLINGS, pools

IMAGES, TOKENS, WIDTH, CLASSES = 2, 6, 5, 4
PREFIX = ("[CLS]", "[DIST]")


def lens_of(seed: int) -> tuple[ClassLens, nn.Module, nn.Module]:
    torch.manual_seed(seed)
    norm, head = nn.LayerNorm(WIDTH).double(), nn.Linear(WIDTH, CLASSES).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    return ClassLens.fold(norm, head.weight, head.bias), norm, head


def made(pooling: str, *, pool_prefix: bool = False, kept: tuple[int, ...] | None = None) -> SimpleNamespace:
    return SimpleNamespace(pooling=pooling, prefix=PREFIX, pool_prefix=pool_prefix, n_tokens=TOKENS, kept_tokens=kept)


MODELS = {pooling: made(pooling) for pooling in LINEAR_POOLINGS}
MODELS |= {f"{pooling} with prefix": made(pooling, pool_prefix=True) for pooling in ("mean_norm", "norm_mean")}
MODELS |= {f"{pooling} without token 3": made(pooling, kept=(0, 1, 2, 4, 5)) for pooling in LINEAR_POOLINGS}


@pytest.fixture(params=MODELS, name="model")
def _model(request):
    return MODELS[request.param]


@pytest.fixture(scope="module", name="parts")
def _parts():
    """Three parts of a last residual stream, removed tokens and all."""
    torch.manual_seed(3)
    return [torch.randn(IMAGES, TOKENS, WIDTH, dtype=torch.float64) for _ in range(3)]


def answer(model, stream) -> torch.Tensor:
    """The slow way: every picture by itself, with the norm and the classifier themselves."""
    (_, norm, head), (_, second_norm, second) = lens_of(0), lens_of(1)
    out = []
    for picture in stream:
        if model.pooling == "token":
            out.append(head(norm(picture[0])))
            continue
        if model.pooling == "distilled":
            out.append((head(norm(picture[0])) + second(second_norm(picture[1]))) / 2)
            continue
        taking_part = [
            t
            for t in range(TOKENS)
            if (model.pool_prefix or t >= len(PREFIX)) and (model.kept_tokens is None or t in model.kept_tokens)
        ]
        total = torch.zeros(WIDTH, dtype=torch.float64)
        for t in taking_part:
            total += norm(picture[t]) if model.pooling == "norm_mean" else picture[t]
        mean = total / len(taking_part)
        out.append(head(mean if model.pooling == "norm_mean" else norm(mean)))
    return torch.stack(out).detach()


def test_logits_are_the_pooled_answer(model, parts):
    stream = sum(parts)
    found = Readout.of_pass(model).logits(lens_of(0)[0], stream, lens_of(1)[0])
    assert torch.allclose(found, answer(model, stream), atol=1e-12)


def test_shares_of_parts_sum_to_the_answer(model, parts):
    (lens, _, _), (second, _, _) = lens_of(0), lens_of(1)
    readout, stream = Readout.of_pass(model), sum(parts)
    shares = [
        readout.share(lambda one, part=part: one.raw(part).permute(2, 0, 1), lens, stream, second) for part in parts
    ]
    total = sum(shares).T + readout.offset(lens, second)
    assert torch.allclose(total, answer(model, stream), atol=1e-12)


def test_a_pooled_answer_is_read_from_one_weighted_sum(model, parts):
    (lens, _, _), readout, stream = lens_of(0), Readout.of_pass(model), sum(parts)
    if not readout.pools:
        assert readout.place == 0
        return
    assert readout.place == TOKENS
    for picture, expected in zip(stream, answer(model, stream), strict=True):
        weights = readout.token_weights(lens, picture)
        read = weights @ picture
        scale = 1.0 if readout.norm_first else lens.sigma(read)
        assert torch.allclose(lens.raw(read) / scale + lens.offset, expected, atol=1e-12)


def test_vectors_and_weights_are_what_passes_through_the_lens(model, parts):
    (lens, _, _), readout, stream = lens_of(0), Readout.of_pass(model), sum(parts)
    if model.pooling == "distilled":  # explained through the first classifier alone
        model = made("token")
    vectors, weights = readout.vectors(stream)
    assert torch.allclose(torch.einsum("n,bnc->bc", weights, lens.logits(vectors)), answer(model, stream), atol=1e-12)
    assert float(readout.weights.sum()) == pytest.approx(1.0)
    assert readout.places.tolist() == readout.weights.nonzero().flatten().tolist() == list(readout.tokens)


def test_means_and_rows_are_over_the_tokens_read(model, parts):
    readout, stream = Readout.of_pass(model), sum(parts)
    expected = sum(stream[:, t] for t in readout.tokens) / len(readout.tokens)
    assert torch.allclose(readout.mean(stream)[:, 0], expected)
    matrices = torch.randn(IMAGES, 3, TOKENS, TOKENS, dtype=torch.float64)
    expected = sum(matrices[..., t, :] for t in readout.tokens) / len(readout.tokens)
    assert torch.allclose(readout.rows(matrices), expected)


def test_a_pass_of_the_kept_tokens_alone_numbers_them_anew():
    """A trace that was not put back on the full sequence: all its tokens are kept ones."""
    short = made("mean_norm", kept=(0, 1, 2, 4, 5, 8))
    assert Readout.of_pass(short).tokens == (2, 3, 4, 5)


def test_removed_tokens_do_not_spread_their_nan(parts):
    model, stream = MODELS["norm_mean without token 3"], sum(parts)
    stream[:, 3] = torch.nan
    readout, lens = Readout.of_pass(model), lens_of(0)[0]
    assert torch.isfinite(readout.logits(lens, stream)).all()
    assert torch.isfinite(readout.token_weights(lens, stream[0])).all()


def test_a_token_by_its_index():
    readout = Readout.at(4, TOKENS)
    assert (readout.tokens, readout.pools, readout.place) == ((4,), False, 4)
    with pytest.raises(ValueError, match=r"token must be in 0\.\.5, got 6"):
        Readout.at(6, TOKENS)


def test_two_classifiers_need_two_lenses(parts):
    with pytest.raises(ValueError, match="give second="):
        Readout.of_pass(MODELS["distilled"]).logits(lens_of(0)[0], parts[0])


def test_which_answers_are_means():
    assert {pooling: pools(pooling) for pooling in POOLINGS} == {
        "token": False, "distilled": False, "mean_norm": True, "norm_mean": True, "pool": True,
    }  # fmt: skip
