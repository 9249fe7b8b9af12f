"""Traces: what is kept, what is left alone, and slow references for ranks and measurements."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch

from classspace_widgets import ClassSpace, Trace
from classspace_widgets import metrics as m
from classspace_widgets.interventions import KnockOutAttention, RemoveTokens, run_with
from classspace_widgets.lens import ClassLens
from classspace_widgets.metrics.identifiability import identifiability
from classspace_widgets.models import UnsupportedModelError
from core.families import SMALL, build, build_double, perturbed, pixels


def test_ranks_count_strictly_larger_logits(trace):
    logits, ranks = trace.logits("mid", 2), trace.ranks("mid", 2)
    assert ranks.shape == logits.shape
    for b in range(2):
        for t in range(trace.n_tokens):
            for c in range(trace.n_classes):
                rank = sum(float(other) > float(logits[b, t, c]) for other in logits[b, t])
                assert int(ranks[b, t, c]) == rank


def test_subsets_of_blocks_tokens_and_classes(trace):
    whole = torch.stack([trace.logits("mid", b) for b in (1, 2)])
    part = trace.logits("mid", [1, 2], classes=["class 3", 1], tokens=[4, 0])
    assert torch.allclose(part, whole[:, :, [4, 0]][..., [3, 1]])
    assert trace.logits(block=None).shape[0] == trace.n_blocks + 1
    values, classes = trace.top_k(3, "mid", [1, 2])
    best = whole.topk(3, dim=-1)
    assert torch.equal(classes, best.indices)
    assert torch.allclose(values, best.values)


def test_step_and_paper_readings_against_loops(trace):
    step, paper = m.contributions(trace, 5, "step"), m.contributions(trace, 5, "paper")
    for block in (1, 2):
        before = trace.logits("residual", block - 1, 5)[..., 0]
        mid, after = trace.logits("mid", block, 5)[..., 0], trace.logits("residual", block, 5)[..., 0]
        assert torch.allclose(step.attention[0, block - 1], mid - before)
        assert torch.allclose(step.mlp[0, block - 1], after - mid)
        assert torch.allclose(paper.attention[0, block - 1], trace.logits("attention", block, 5)[..., 0] - before)
        assert torch.allclose(paper.mlp[0, block - 1], trace.logits("mlp", block, 5)[..., 0] - before)


def test_measurements_against_loops(trace):
    labels = [3, 8]
    found = m.class_identifiability(trace, labels)
    change = m.class_similarity_change(trace, labels, sublayer="mlp")
    against_mid = m.class_similarity_change(trace, labels, sublayer="mlp", against="sublayer_input")
    same = m.class_similarity_change(trace, labels, sublayer="attention", against="sublayer_input")
    assert torch.equal(same, m.class_similarity_change(trace, labels, sublayer="attention"))
    with pytest.raises(ValueError, match="must be 'block_input' or 'sublayer_input', got 'mid'"):
        m.class_similarity_change(trace, labels, against="mid")
    new = m.residual_composition(trace)
    for block in (1, 2):
        for b, label in enumerate(labels):
            for t in range(trace.n_tokens):
                at = {s: trace.logits(s, block)[b, t] for s in trace.points.streams}
                before = trace.logits("residual", block - 1)[b, t]
                rank = int((at["residual"] > at["residual"][label]).sum())
                assert float(found[block, b, t]) == pytest.approx(1 - rank / trace.n_classes)
                assert bool(change[block - 1, b, t]) == bool(at["mlp"][label] > before[label])
                assert bool(against_mid[block - 1, b, t]) == bool(at["mlp"][label] > at["mid"][label])
                old = {int(before.argmax()), int(at["attention"].argmax()), int(at["mlp"].argmax())}
                assert bool(new[block - 1, b, t]) == (int(at["residual"].argmax()) not in old)


def test_residual_composition_worked_by_hand():
    """Width and classes are the same here, so vectors are logits; each token takes its class from another place."""
    before = torch.tensor([[9.0, 0, 0, 0], [0, 0, 9, 0], [0, 0, 9, 0], [0, 0, 9, 0], [0, 0, 2, 2]])
    attention = torch.tensor([[0.0, 1, 0, 0], [0, 19, 0, 0], [0, 0, 0, 1], [0, 6, 0, 7], [3, 2.5, 0, 0]])
    mlp = torch.tensor([[0.0, 0, 1, 0], [0, 0, 1, 0], [19, 0, 0, 0], [7, 6, 0, 0], [0, 2, 1, 2.4]])
    taken_from = ["input", "attention", "MLP", "nobody", "nobody"]
    lens = ClassLens(torch.eye(4), torch.zeros(4), centred=False, scaled=False, eps=0.0)
    trace = Trace(
        increments=[x.unsqueeze(0) for x in (before, attention, mlp)],
        output=torch.zeros(1, 4),
        lens=lens,
        prefix=("[CLS]",),
        grid=(2, 2),
        pooling="token",
        layout="sequential",
        class_names=("a", "b", "c", "d"),
    )
    assert m.residual_composition(trace)[0, 0].tolist() == [where == "nobody" for where in taken_from]


@pytest.mark.parametrize("k", [1, 5, 12])
def test_streaming_with_many_classes(many, k):
    images = pixels(many, 3)
    trace = many.trace(images)
    found = many.stream_readings(images, torch.tensor([[0], [1002], [511]]), k=k, chunk=2)
    for stream in trace.points.streams:
        logits = trace.logits(stream, 2)
        point = found.points.number(stream, 2)
        best = logits.topk(k, dim=-1)
        assert torch.equal(found.top_classes[point].long(), best.indices)
        assert torch.allclose(found.top_logits[point], best.values, atol=1e-9)
        own = torch.stack([logits[b, :, c] for b, c in enumerate((0, 1002, 511))])
        assert torch.equal(found.ranks[point, ..., 0].long(), (logits > own.unsqueeze(-1)).sum(dim=-1))
    assert torch.allclose(found.output, trace.output)
    assert torch.allclose(found.identifiability().double(), 1 - found.ranks.double() / many.n_classes, atol=1e-7)


def test_the_worst_rank_is_exactly_one_in_so_many():
    for n_classes in (3, 1000, 1003, 21_843):
        worst, best = identifiability(torch.tensor([n_classes - 1, 0]), n_classes)
        assert worst == torch.tensor(1 / n_classes)
        assert best == 1


def test_counting_does_not_overflow():
    from classspace_widgets.lens.ranking import Ranker, padded_classes

    scores = torch.ones(2, padded_classes(30_000))
    ranker = Ranker(2, 30_000, 1, dtype=scores.dtype, device=scores.device)
    assert ranker.count_above(scores, torch.tensor([[0.0], [1.0]])).tolist() == [scores.shape[1], 0]


def test_rows_are_counted_in_pieces():
    from classspace_widgets.lens.ranking import COUNTED_ROWS, Ranker, padded_classes

    rows = 2 * COUNTED_ROWS + 7
    scores = torch.randn(rows, padded_classes(20), generator=torch.Generator().manual_seed(0))
    ranker = Ranker(rows, 20, 1, dtype=scores.dtype, device=scores.device)
    own = scores[:, 3:4].clone()
    assert torch.equal(ranker.count_above(scores, own).long(), (scores > own).sum(dim=1))


def test_float32_ranks_are_those_of_float64_but_for_near_ties(many):
    images = pixels(many)
    exact = many.stream_readings(images, [0, 700])
    rough = ClassSpace(copy.deepcopy(many.model).float()).stream_readings(images.float(), [0, 700])
    assert int((exact.ranks - rough.ranks).abs().max()) <= 1
    assert float((exact.ranks != rough.ranks).float().mean()) < 0.01


def hooks(model):
    return sum(len(x._forward_hooks) + len(x._forward_pre_hooks) for x in model.modules())


def test_a_trace_leaves_everything_as_it_was():
    model = build("ViT").train()
    model.blocks[1].eval()
    flags = [x.training for x in model.modules()], [x.attn.fused_attn for x in model.blocks]
    weights = copy.deepcopy(model.state_dict())
    space = ClassSpace(model)
    state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    space.trace(pixels(space), attention=True, heads=True)
    space.stream_readings(pixels(space), [0])
    space.random_twin(3)
    assert torch.equal(state, torch.get_rng_state())
    assert grad == torch.is_grad_enabled()
    assert flags == ([x.training for x in model.modules()], [x.attn.fused_attn for x in model.blocks])
    assert hooks(model) == 0
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_threads_share_a_model_one_after_the_other():
    space = ClassSpace(build("ViT").train())
    pictures = [pixels(space, 1) + i for i in range(8)]

    def work(picture):
        trace = space.trace(picture, attention=True)
        return trace.stream("residual", 2), run_with(space, picture, [RemoveTokens(tokens=[3])]), len(trace.increments)

    alone = [work(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for expected, found in zip(alone, pool.map(work, pictures), strict=True):
                assert torch.allclose(expected[0], found[0], atol=1e-5)
                assert torch.allclose(expected[1], found[1], atol=1e-5)
                assert expected[2] == found[2]
    assert space.model.training


def test_hooks_come_off_after_an_error():
    model = build("ViT")
    space = ClassSpace(model)

    def fail(*_):
        raise RuntimeError("stop here")

    handle = model.blocks[1].mlp.register_forward_hook(fail)
    for run in (lambda: space.trace(pixels(space), attention=True, heads=True),
                lambda: space.stream_readings(pixels(space), [0])):  # fmt: skip
        with pytest.raises(RuntimeError, match="stop here"):
            run()
    handle.remove()
    assert hooks(model) == 0
    assert all(block.attn.fused_attn for block in model.blocks)


def test_attention_by_block_and_head(space, trace):
    some = space.trace(pixels(space), attention={2: [1, 3]}, heads=[1])
    assert torch.allclose(some.attention_weights[2], trace.attention_weights[2][:, [1, 3]])
    assert list(some.attention_weights) == [2]
    assert list(some.head_inputs) == [1]
    with pytest.raises(ValueError, match=r"1\.\.2"):
        space.trace(pixels(space), attention=[3])
    for choice in ({0: [1]}, {3: [1]}, {2: [-1]}, {2: [4]}):
        with pytest.raises(ValueError, match=r"a head must be in 0\.\.3|a block must be in 1\.\.2"):
            space.trace(pixels(space), attention=choice)
    with pytest.raises(ValueError, match="were not kept"):
        some.values(2)


def test_key_coefficients_weigh_the_value_vectors(space):
    trace = space.trace(pixels(space), heads=True, keys=[2])
    with torch.inference_mode():
        for sublayer, module in (
            ("mlp", space.model.blocks[1].mlp.fc2),
            ("attention", space.model.blocks[1].attn.proj),
        ):
            coefficients = trace.key_coefficients(2, sublayer)
            added = sum(
                coefficients[..., m, None] * module.weight[:, m] for m in range(coefficients.shape[-1])
            )  # the paper: sum over memories of coefficient times value vector
            assert torch.allclose(added + module.bias, trace.stream(sublayer, 2))
    with pytest.raises(ValueError, match=r"keys=\[1\]"):
        trace.key_coefficients(1)
    with pytest.raises(ValueError, match=r"1\.\.2"):
        space.trace(pixels(space), keys=[3])


def test_chunks_make_no_difference(space, trace):
    parts = space.trace(pixels(space), attention=True, heads=True, keys=True, chunk=1)
    assert torch.allclose(parts.key_coefficients(2), space.trace(pixels(space), keys=True).key_coefficients(2))
    assert all(torch.allclose(a, b) for a, b in zip(parts.increments, trace.increments, strict=True))
    assert torch.allclose(parts.attention_weights[2], trace.attention_weights[2])


@pytest.mark.parametrize("family", ["ViT", "DeiT, distilled", "Parallel attention and MLP", "BEiT"])
def test_save_and_load(tmp_path, family):
    space = ClassSpace(build(family))
    trace = space.trace(pixels(space), attention=True, heads=True, keys=True)
    trace.save(tmp_path / "one.safetensors")
    back = Trace.load(tmp_path / "one.safetensors", space=space)
    assert torch.equal(back.logits(), trace.logits())
    assert torch.equal(back.readout(), trace.readout())
    assert np.array_equal(back.pictures, trace.pictures)
    for name in ("prefix", "grid", "pooling", "layout", "class_names", "heads", "kept_tokens", "image_names"):
        assert getattr(back, name) == getattr(trace, name)
    for block, weights in trace.attention_weights.items():
        assert torch.equal(back.attention_weights[block], weights)
    assert list(back.mlp_keys) == list(trace.mlp_keys)
    assert all(torch.equal(back.mlp_keys[block], keys) for block, keys in trace.mlp_keys.items())


def test_damaged_and_foreign_files(tmp_path, trace):
    from safetensors.torch import save_file

    with pytest.raises(IsADirectoryError, match="is a folder; name the file"):
        trace.save(tmp_path)
    path = tmp_path / "one.safetensors"
    trace.save(path)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-100])
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        Trace.load(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="is not a trace"):
        Trace.load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "none.safetensors")


def test_parallel_blocks_have_no_sublayers():
    space = ClassSpace(build("Parallel attention and MLP"))
    trace = space.trace(pixels(space))
    with pytest.raises(UnsupportedModelError, match="in parallel"):
        trace.stream("mlp", 1)
    with pytest.raises(UnsupportedModelError, match="by block"):
        m.contributions(trace, 0).attention
    assert m.contributions(trace, 0).values.shape[1] == trace.n_blocks + 1


def test_low_precision_passes():
    space = ClassSpace(build("ViT"), dtype=torch.bfloat16)
    trace = space.trace(pixels(space))
    assert trace.increments[1].dtype == torch.bfloat16
    assert trace.logits().dtype == torch.float32
    full = ClassSpace(perturbed(timm.create_model("vit_base_patch16_224", **SMALL)))
    rough = full.stream_readings(pixels(full), [0], precision="bfloat16")
    exact = full.stream_readings(pixels(full), [0])
    assert float((rough.ranks - exact.ranks).abs().float().mean()) < 1


def test_the_scale_of_the_final_norm_has_its_gradient(space):
    vectors = torch.randn(3, space.lens.folded.shape[1], dtype=torch.float64, requires_grad=True)
    read = space.lens.logits(vectors, torch.tensor([1]))
    (found,) = torch.autograd.grad(read.sum(), vectors)
    reference = space.adapter.norm(vectors) @ space.adapter.embedding[1] + space.adapter.bias[1]
    (expected,) = torch.autograd.grad(reference.sum(), vectors)
    assert torch.allclose(found, expected)
    assert torch.allclose(read[:, 0], reference)


@pytest.mark.parametrize("k", [26, 300, 1003])
def test_more_top_classes_than_are_found_by_groups(many, k):
    images = pixels(many)
    found = many.stream_readings(images, 7, k=k)
    values, classes = many.trace(images).top_k(k)
    assert torch.allclose(found.top_logits[-1], values)
    assert torch.equal(found.top_classes[-1].long(), classes)


def test_sources_need_the_attention_of_all_heads(space):
    some = space.trace(pixels(space), attention={1: [0]}, heads=True)
    with pytest.raises(ValueError, match="all 4 heads of block 1, the trace has 1"):
        m.direct_by_source(some, 1, [3], [0])
    assert "attention" not in space.trace(pixels(space), attention={1: [0], 2: [0]}).snapshot().arrays


def test_what_a_trace_gives_can_be_trained_on():
    space = ClassSpace(perturbed(build("ViT")))
    trace = space.trace(pixels(space), attention=True, heads=True, keys=True)
    given = [
        *trace.increments,
        trace.output,
        trace.readout(),
        trace.logits(),
        trace.attention_weights[1],
        trace.key_coefficients(1, "attention"),
        trace.key_coefficients(1),
        trace.values(1),
        trace.top_k(2)[0],
        m.contributions(trace, 0).attention,
        m.direct_by_head(trace, 1, 0)[0],
        m.direct_by_source(trace, 1, 0, [0]),
        run_with(space, pixels(space), KnockOutAttention("self_only")),
        space.stream_readings(pixels(space), 0).logits,
    ]
    for tensor in given:
        weight = torch.ones(1, requires_grad=True)
        (tensor * weight).sum().backward()
        assert torch.allclose(weight.grad, tensor.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["ViT", "DeiT, distilled", "SigLIP, GAP", "Parallel attention and MLP"])
def test_the_trace_of_one_image_reads_as_its_row_of_the_batch(family):
    space = ClassSpace(build_double(family))
    trace = space.trace(pixels(space, 3), attention=True, heads=True, keys=True)
    for number in range(3):
        one = trace.image(number)
        row = slice(number, number + 1)
        assert (one.n_images, one.n_blocks, one.n_tokens) == (1, trace.n_blocks, trace.n_tokens)
        assert torch.equal(one.output, trace.output[row])
        for block, stream in trace.points:
            assert torch.equal(one.stream(stream, block), trace.stream(stream, block)[row])
            assert torch.allclose(one.logits(stream, block), trace.logits(stream, block)[row], atol=1e-12)
            assert torch.equal(one.ranks(stream, block), trace.ranks(stream, block)[row])
        assert torch.allclose(one.readout(), trace.readout()[row], atol=1e-12)
        for name in ("attention_weights", "head_inputs", "attention_inputs", "mlp_keys"):
            kept, whole = getattr(one, name), getattr(trace, name)
            assert kept.keys() == whole.keys()
            assert all(torch.equal(kept[block], whole[block][row]) for block in whole)
            # Views of the same memory, no copies.
            assert all(kept[b].untyped_storage().data_ptr() == whole[b].untyped_storage().data_ptr() for b in whole)
        assert one.increments[1].untyped_storage().data_ptr() == trace.increments[1].untyped_storage().data_ptr()
    with pytest.raises(ValueError, match=r"image must be in 0\.\.2, got 3"):
        trace.image(3)


def test_a_trace_does_not_change():
    space = ClassSpace(build("ViT"))
    trace = space.trace(pixels(space))
    with pytest.raises(AttributeError, match="cannot assign"):
        trace.output = None
    assert isinstance(trace.increments, tuple)
    assert trace.points is trace.points
    # Not compared by its tensors: a trace equals itself alone.
    assert trace == trace
    assert trace != space.trace(pixels(space))
