"""The Jacobian lens against closed forms and slow loops of autograd."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_models import PICTURES, images_for, perturb, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.fitting import LensSums, fit_lens
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.points import Point

FAMILIES = {
    "cls": {},
    "mean": {"global_pool": "avg", "fc_norm": True},
    "mean of all normalised": {"global_pool": "avg", "fc_norm": False, "class_token": False},
    "registers": {"reg_tokens": 2},
    "layer scale": {"init_values": 0.3},
    "attention pooling": {"global_pool": "map", "class_token": False},
}


def double(**options) -> ClassSpace:
    settings = {"img_size": 32, "patch_size": 16, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 5}
    model = perturb(VisionTransformer(**(settings | options))).double()
    model.pretrained_cfg = PICTURES
    return ClassSpace(model, device="cpu")


def from_block(model, x, block):
    """The model's logits from the residual stream after a block on."""
    for part in model.blocks[block:]:
        x = part(x)
    return model.forward_head(model.norm(x))


def from_mid(model, x, block):
    """The model's logits from the residual stream between attention and MLP of a block on."""
    part = model.blocks[block - 1]
    return from_block(model, x + part.ls2(part.mlp(part.norm2(x))), block)


def slow_maps(space, images):
    """Jacobians one picture, one point, one class and one token at a time: ``[N, Q, C, D]``, means ``[N, Q, D]``, logits."""
    model, prefix = space.model, len(space.adapter.prefix)
    trace = space.trace(images)
    maps, means = [], []
    for n in range(len(trace.increments)):
        block = -(-n // 2)
        stream = "mid" if n % 2 else "residual"
        vectors = trace.stream(stream, block)
        total = 0
        for picture in vectors:
            x = picture[None].clone().requires_grad_(True)
            logits = from_mid(model, x, block) if n % 2 else from_block(model, x, block)
            rows = torch.stack([torch.autograd.grad(one, x, retain_graph=True)[0][0] for one in logits[0]], dim=1)
            kinds = [rows[t] for t in range(prefix)] + [sum(rows[t] for t in range(prefix, len(rows)))]
            total = total + torch.stack(kinds)
        maps.append(total / len(vectors))
        tokens = [vectors[:, t].mean(0) for t in range(prefix)] + [vectors[:, prefix:].mean((0, 1))]
        means.append(torch.stack(tokens))
    return torch.stack(maps), torch.stack(means), trace.output.mean(0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("classes", [None, 3])
def test_maps_are_mean_jacobians(family, classes):
    """With five classes rows are classes; with more classes than coordinates they are coordinates of the state."""
    many = {} if classes is None else {"num_classes": 17}
    space = double(**FAMILIES[family], **many)
    images = images_for(space, 8).double()
    lens = fit_lens(space, "jacobian", images, batch_size=3)
    maps, means, logits = slow_maps(space, images)
    offsets = logits - torch.einsum("nqcd,nqd->nqc", maps, means)
    for n in range(len(maps)):
        for q in range(maps.shape[1]):
            if not lens.defined[n, q] or lens.classifier[n, q]:
                continue
            assert torch.allclose(lens.weights[n, q], maps[n, q], atol=1e-9), (n, q)
            assert torch.allclose(lens.offsets[n, q], offsets[n, q], atol=1e-9), (n, q)
    # Where nothing reads a token its Jacobian is zero, and the lens says that it is undefined.
    silent = maps.abs().amax(dim=(2, 3)) == 0
    assert torch.equal(silent, ~lens.defined)


def test_a_linear_model_gives_the_closed_form():
    """Blocks that add a fixed linear map and a classifier without a norm: the Jacobian is the product of the maps."""
    space = double(depth=2, norm_layer=torch.nn.Identity)
    blocks = space.model.blocks
    with torch.no_grad():
        for block in blocks:
            block.attn.proj.weight.zero_()  # attention adds its bias alone
            block.mlp.act = torch.nn.Identity()
    space = ClassSpace(space.model, device="cpu")
    lens = fit_lens(space, "jacobian", images_for(space, 8).double())
    step = [torch.eye(12, dtype=torch.float64) + b.mlp.fc2.weight @ b.mlp.fc1.weight for b in blocks]
    head = space.model.head.weight
    expected = {
        (0, "residual"): head @ step[1] @ step[0],
        (1, "residual"): head @ step[1],
        (1, "mid"): head @ step[1] @ step[0],
    }
    for (block, stream), rows in expected.items():
        number = lens.points.increment(stream, block)
        assert torch.allclose(lens.weights[number, 0], rows, atol=1e-10), (block, stream)
        assert lens.error[number, 0] < 1e-6  # the same in every picture
    # The score of [CLS] is its logit exactly: nothing else leads there.
    trace = space.trace(images_for(space, 3, seed=9).double())
    for block in (0, 1, 2):
        scores = lens.logits(trace.stream("residual", block)[:, :1], Point(block, "residual"), [0])
        moved = 0 if block == 0 else None
        if moved is None:
            assert torch.allclose(scores[:, 0], trace.output, atol=1e-9)


def test_what_a_sublayer_adds_is_read_with_the_map_that_it_is_added_to():
    space = double()
    images = images_for(space, 8).double()
    lens = fit_lens(space, "jacobian", images)
    trace = space.trace(images)
    tokens = list(range(trace.n_tokens))
    for block in (1, 2):
        before, after = trace.stream("residual", block - 1), trace.stream("mid", block)
        mid = lens.logits(after, Point(block, "mid"), tokens)
        added = lens.logits(trace.stream("attention", block), Point(block, "attention"), tokens)
        number = lens.points.increment("mid", block)
        kinds = lens.kinds(tokens)
        # mid = map (before + attention) + offset
        rest = torch.stack(
            [
                before[:, t] @ lens.weights[number, k].T + lens.offsets[number, k]
                for t, k in zip(tokens, kinds, strict=True)
            ],
            dim=1,
        )
        known = ~mid.isnan()
        assert torch.allclose((rest + added)[known], mid[known], atol=1e-10)


def test_the_answer_is_read_by_the_classifier():
    for name, family in FAMILIES.items():
        if name == "attention pooling":  # a head that pools by a module reads no single token
            continue
        space = double(**family)
        images = images_for(space, 8).double()
        lens = fit_lens(space, "jacobian", images)
        trace = space.trace(images)
        last = trace.stream("residual", trace.n_blocks)
        scores = lens.logits(last, Point(trace.n_blocks, "residual"), list(range(trace.n_tokens)))
        own = space.lens.logits(last)
        read = ~scores[0, :, 0].isnan()
        assert read.any()
        assert torch.equal(scores[:, read], own[:, read])
    space = double()
    lens = fit_lens(space, "jacobian", images_for(space, 8).double())
    assert lens.undefined(Point(2, "residual")) == lens.undefined(Point(2, "mid")) == ("image",)
    assert lens.undefined(Point(2, "mlp")) == ("image",)
    assert lens.undefined(Point(1, "residual")) == ()


def test_parts_of_the_pictures_add_up():
    space = double()
    images = images_for(space, 10).double()
    whole, first, second = (LensSums.start(space, "jacobian") for _ in range(3))
    whole.update(images)
    first.update(images[:3])
    second.update(images[3:])
    together = first.merge(second)
    assert together.pictures == 10
    for name in ("weights", "offsets", "error"):
        assert torch.allclose(
            getattr(together.lens(), name), getattr(whole.lens(), name), atol=1e-10, equal_nan=True
        ), name


def test_the_standard_error_is_that_of_the_mean_over_pictures():
    space = double()
    images = images_for(space, 9).double()
    lens = fit_lens(space, "jacobian", images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = torch.stack([fit_lens(space, "jacobian", image[None]).weights for image in images])
    for n, q in ((0, 1), (1, 0), (2, 1)):
        spread = (single[:, n, q] - single[:, n, q].mean(0)).square().sum(dim=(1, 2)).sum() / (9 - 1)
        expected = (spread / 9).sqrt() / single[:, n, q].mean(0).norm()
        assert torch.allclose(lens.error[n, q].double(), expected, rtol=1e-4)


def test_a_model_that_was_first_read_in_inference_mode():
    """What was folded there is used later in passes that are differentiated."""
    plain, other = double(), double()
    space = ClassSpace(other.model, device="cpu", check=False)
    images = images_for(space, 4).double()
    with torch.inference_mode():
        space.trace(images).logits()
    assert not any(tensor.is_inference() for tensor in space.lens.tensors())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that four pictures are few
        first, second = (fit_lens(one, "jacobian", images, progress=False) for one in (plain, space))
    torch.testing.assert_close(first.weights, second.weights)
    with torch.inference_mode():
        moved = first.to("meta")
    assert not moved.weights.is_inference()


def test_two_fits_in_pieces_and_a_model_in_training_mode_agree():
    space = tiny_vit(proj_drop_rate=0.5)
    images = images_for(space, 8)
    space.model.train()
    lens = fit_lens(space, "jacobian", images, batch_size=3)
    assert space.model.training
    space.model.eval()
    again = fit_lens(space, "jacobian", images, batch_size=8)
    assert torch.allclose(lens.weights, again.weights, atol=1e-5)
    assert all(p.grad is None for p in space.model.parameters())


def test_frozen_weights_and_no_grad_around_change_nothing():
    space = tiny_vit()
    images = images_for(space, 8)
    lens = fit_lens(space, "jacobian", images)
    frozen = copy.deepcopy(space.model).requires_grad_(False)
    with torch.no_grad():
        other = fit_lens(ClassSpace(frozen, device="cpu"), "jacobian", images)
    assert torch.equal(lens.weights, other.weights)


def test_a_model_that_hides_from_autograd_is_refused_by_name():
    space = tiny_vit()
    block = space.model.blocks[1]
    plain = block.forward
    block.forward = torch.no_grad()(plain)
    with pytest.raises(UnsupportedModelError, match=r"autograd cannot follow.*translator"):
        fit_lens(space, "jacobian", images_for(space, 8))


def test_a_foreign_class_embedding_is_read_through_the_pooled_lens():
    model = double().model
    embedding = torch.randn(4, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    space = ClassSpace(model, device="cpu", class_embedding=embedding)
    images = images_for(space, 8).double()
    lens = fit_lens(space, "jacobian", images)
    as_head = copy.deepcopy(model)
    as_head.head = torch.nn.Linear(12, 4, bias=False).double()
    with torch.no_grad():
        as_head.head.weight.copy_(embedding)
    own = fit_lens(ClassSpace(as_head, device="cpu"), "jacobian", images)
    assert torch.allclose(lens.weights, own.weights, atol=1e-10)
