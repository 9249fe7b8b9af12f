"""Readings inside the pass: the model's mode, flags of the caller, points that do not exist, very many classes."""

from __future__ import annotations

import pytest
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.lens import ClassLens
from classspace_widgets.space import streaming
from core.families import available, build, build_double, pixels


def test_a_model_in_training_is_read_in_evaluation_mode():
    model = build("ViT", drop_rate=0.4, pos_drop_rate=0.4, proj_drop_rate=0.4, attn_drop_rate=0.4, drop_path_rate=0.4)
    space = ClassSpace(model)
    images = pixels(space)
    trace = space.trace(images)
    model.train()
    found = space.stream_readings(images, [0, 7])
    for stream in trace.points.streams:
        torch.testing.assert_close(found.logits[found.points.number(stream, 2)], trace.logits(stream, 2, [0, 7]))
    torch.testing.assert_close(found.output, trace.output)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("before", ["highest", "medium"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_precision_of_products_is_put_back(before, fails, monkeypatch):
    space = ClassSpace(build("ViT"))
    images, during = pixels(space), []
    torch.set_float32_matmul_precision(before)

    def seen(*_):
        during.append(torch.get_float32_matmul_precision())
        if fails:
            raise RuntimeError("stop here")

    handle = space.model.blocks[0].register_forward_hook(seen)
    try:
        for precision in ("tf32", "float32"):
            if fails:
                with pytest.raises(RuntimeError, match="stop here"):
                    space.stream_readings(images, 0, precision=precision)
            else:
                space.stream_readings(images, 0, precision=precision)
            assert torch.get_float32_matmul_precision() == before
        assert during == ["high", before]
    finally:
        handle.remove()
        torch.set_float32_matmul_precision("highest")


def test_points_that_do_not_exist():
    space = ClassSpace(build("ViT"))
    found = space.stream_readings(pixels(space), 0)
    assert found.points.number("residual", 0) == 0
    assert [found.points.number(stream, 1) for stream in found.points.streams] == [1, 2, 3, 4]
    assert found.points.number("residual", found.n_blocks) == len(found.ranks) - 1
    for stream, block in (("attention", 0), ("mid", 0), ("mlp", 0), ("residual", -1), ("residual", 3), ("mlp", 3)):
        with pytest.raises(
            ValueError, match=rf"block of the {stream} stream must be in {int(stream != 'residual')}\.\.2"
        ):
            found.points.number(stream, block)
    with pytest.raises(ValueError, match="stream must be one of"):
        found.points.number("block", 1)


def test_what_is_not_a_number_has_no_rank():
    space = ClassSpace(build("ViT"))
    images = pixels(space)

    def broken(_module, _inputs, output):
        return output.index_fill(1, torch.tensor([2]), float("nan"))

    hook = space.model.blocks[1].mlp.register_forward_hook(broken)
    try:
        found, trace = space.stream_readings(images, [0, 7]), space.trace(images)
    finally:
        hook.remove()
    assert found.top_classes.shape[-1] == 5
    for stream in trace.points.streams:
        for block in (1, 2):
            ranks = found.ranks[found.points.number(stream, block)]
            assert torch.equal(ranks.long(), trace.ranks(stream, block, [0, 7]).long())
            assert bool((ranks[:, 2] == -1).all()) is (block == 2 and stream in ("mlp", "residual"))
            assert int(ranks[:, [0, 1, 3]].min()) >= 0


@pytest.mark.parametrize(("classes", "k"), [(300, 200), (40_000, 300), (40_000, 2)])
def test_very_many_classes_and_top_classes(classes, k):
    """Places of classes beyond 32,767 need more than 16 bits."""
    space = ClassSpace(build("ViT", depth=1, num_classes=classes))
    images = pixels(space, 1)
    last = classes - 1
    found, trace = space.stream_readings(images, [0, last], k=k), space.trace(images)
    for point, (stream, block) in ((0, ("residual", 0)), (-1, ("residual", 1)), (1, ("attention", 1))):
        logits = trace.logits(stream, block)[0]
        chosen = logits.gather(1, found.top_classes[point, 0].long())
        torch.testing.assert_close(found.top_logits[point, 0], chosen, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(chosen, logits.topk(k).values, rtol=1e-4, atol=1e-4)
        expected = torch.stack([(logits > logits[:, [c]]).sum(dim=1) for c in (0, last)], dim=-1)
        assert int((found.ranks[point, 0] - expected).abs().max()) <= max(1, classes // 10_000)
        assert int(found.top_classes.max()) > 2**15 or classes < 2**15


def test_the_quick_scale_of_vectors_whose_mean_is_far_from_zero():
    """From sums and norms it may come out below zero, where it is nothing but rounding: the scale is still a number."""
    lens = ClassLens.fold(torch.nn.LayerNorm(64), torch.randn(3, 64), None)
    generator = torch.Generator().manual_seed(0)
    for mean in (1e3, 1e4, 1e6):
        vectors = mean + 1e-3 * torch.randn(500, 64, generator=generator)
        found = lens.quick_sigma(vectors)
        assert bool(torch.isfinite(found).all())
        assert float(found.min()) >= lens.eps**0.5 * 0.999
    plain = torch.randn(50, 64, generator=generator)
    torch.testing.assert_close(lens.quick_sigma(plain), (plain.var(dim=1, correction=0) + lens.eps).sqrt())
    rms = ClassLens.fold(torch.nn.RMSNorm(64, eps=1e-6), torch.randn(3, 64), None)
    torch.testing.assert_close(rms.quick_sigma(plain), (plain.square().mean(dim=1) + 1e-6).sqrt())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_rough_products_are_near_the_exact_ones_and_are_not_them(precision):
    space = ClassSpace(build("ViT"))
    images = pixels(space)
    rough, exact = (space.stream_readings(images, [0, 5], precision=p) for p in (precision, "float32"))
    assert not torch.equal(rough.logits, exact.logits)
    spread = exact.logits.abs().amax()
    assert float((rough.logits - exact.logits).abs().max() / spread) < 0.02
    # Ranks may change where two logits are closer than the products are precise, and nowhere else.
    assert float((rough.ranks != exact.ranks).float().mean()) < 0.05
    assert int((rough.ranks - exact.ranks).abs().max()) <= 1


@pytest.mark.parametrize("bytes_of_scores", [0, 2**28])
@pytest.mark.parametrize("family", available)
def test_a_gpu_s_way_of_reading_gives_the_same(family, bytes_of_scores, monkeypatch):
    """All rows at once, and four increments or all of them together: the sums are the same."""
    space = ClassSpace(build_double(family))
    images = pixels(space)
    expected = space.stream_readings(images, [0, 7], k=3)
    monkeypatch.setattr(streaming, "_reads_in_pieces", lambda device: False)
    monkeypatch.setattr(streaming, "GPU_BYTES", bytes_of_scores)
    found = space.stream_readings(images, [0, 7], k=3)
    for name in ("ranks", "top_classes"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    for name in ("logits", "top_logits", "output"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-12)


def test_a_gpu_holds_no_more_scores_than_stated(monkeypatch):
    """Four increments wait at least, and all but the embedding at most."""
    waited = []
    take_in = streaming.Reader._take_in

    def counted(reader, first, *rest):
        waited.append(reader.n - first)
        return take_in(reader, first, *rest)

    monkeypatch.setattr(streaming.Reader, "_take_in", counted)
    monkeypatch.setattr(streaming, "_reads_in_pieces", lambda device: False)
    space = ClassSpace(build("ViT", depth=5))
    images = pixels(space)
    tokens = space.trace(images).increments[0].shape[:2].numel()
    increment = 2 * tokens * len(streaming.Projection.of(space.lens, torch.float32).offset) * 4
    for held, expected in ((0, [1, 4, 4, 2]), (7 * increment, [1, 7, 3]), (2**40, [1, 10])):
        waited.clear()
        monkeypatch.setattr(streaming, "GPU_BYTES", held)
        space.stream_readings(images, [0])
        assert waited == expected
