"""Every supported family against its own forward pass, and every refusal; the table in the docs is made here."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional

from classspace_widgets import ClassSpace
from classspace_widgets.metrics import contributions, direct_by_head, direct_by_source, output_contributions
from classspace_widgets.models import UnsupportedModelError, adapt
from classspace_widgets.models.refusals import REASONS, REMEDY
from core.families import POOLED, REFUSED, SUPPORTED, available, build, build_double, pixels

TABLE = Path(__file__).parents[2] / "docs" / "supported_models.md"


@pytest.fixture(scope="module", params=available, ids=str)
def case(request):
    space = ClassSpace(build_double(request.param))
    return space, space.trace(pixels(space), attention=True, heads=True)


def reference_lens(space, vectors):
    """The model's own norm and classifier, one token at a time."""
    adapter = space.adapter
    out = []
    with torch.no_grad():
        for v in vectors.reshape(-1, vectors.shape[-1]):
            normed = v if adapter.norm is None else adapter.norm(v)
            out.append(functional.linear(normed, adapter.embedding, adapter.bias))
    return torch.stack(out).reshape(*vectors.shape[:-1], -1)


def test_readings_are_the_models_own_norm_and_classifier(case):
    space, trace = case
    for stream in trace.points.streams:
        vectors = trace.stream(stream, 1)
        assert torch.allclose(trace.logits(stream, 1), reference_lens(space, vectors), atol=1e-10)


def test_output_is_read_from_the_last_residual_stream(case):
    space, trace = case
    with torch.no_grad():
        bare = space.model(pixels(space))
    assert torch.allclose(bare, trace.output, atol=1e-9)
    assert torch.allclose(trace.readout(), trace.output, atol=1e-9)


def test_direct_contributions_are_complete(case):
    _, trace = case
    shares, offset = output_contributions(trace, [0, 7])
    assert torch.allclose(shares.sum(dim=1) + offset[:, None], trace.output[:, [0, 7]].T, atol=1e-9)
    for reading in ("direct", "step"):
        total = contributions(trace, [0, 7], reading).total()
        assert torch.allclose(total, trace.logits(classes=[0, 7]).permute(2, 0, 1), atol=1e-9)


def test_heads_and_sources_are_exact_or_refused(case):
    _, trace = case
    if trace.layout == "parallel":
        with pytest.raises(UnsupportedModelError, match="together"):
            trace.values(1)
        return
    parts = trace.attention_parts(2)
    if parts.split is not None:
        with pytest.raises(UnsupportedModelError, match="told apart"):
            trace.out_projection(2)
        return
    weight, bias = trace.out_projection(2)
    assert torch.allclose(trace.head_inputs[2] @ weight.T + bias, trace.stream("attention", 2), atol=1e-10)
    heads, rest = direct_by_head(trace, 2, [0, 7])
    assert torch.allclose(heads.sum(dim=1) + rest, contributions(trace, [0, 7]).attention[:, 1], atol=1e-10)
    if parts.sources is not None:
        with pytest.raises(UnsupportedModelError, match="not defined"):
            trace.values(2)
        return
    mixed = trace.attention_weights[2] @ trace.values(2)
    assert torch.allclose(mixed.transpose(1, 2).flatten(2), trace.head_inputs[2], atol=1e-10)
    sources = direct_by_source(trace, 2, [0, 7], [0, 2])
    assert torch.allclose(sources.sum(dim=-1), heads[..., [0, 2]], atol=1e-10)


def test_streaming_reads_the_same(case):
    space, trace = case
    found = space.stream_readings(pixels(space), [0, 7])
    for stream in trace.points.streams:
        point = found.points.number(stream, 2)
        assert torch.allclose(found.logits[point], trace.logits(stream, 2, [0, 7]), atol=1e-9)
        assert torch.equal(found.ranks[point].long(), trace.ranks(stream, 2, [0, 7]))


def test_grid_and_prefix_add_up(case):
    _, trace = case
    assert trace.n_tokens == len(trace.prefix) + trace.grid[0] * trace.grid[1]


@pytest.mark.parametrize("family", REFUSED)
def test_refusals_name_the_model_and_the_remedy(family):
    name, options = REFUSED[family]
    model = timm.create_model(name, **options)
    with pytest.raises(UnsupportedModelError, match=type(model).__name__) as caught:
        ClassSpace(model)
    assert "pass class_embedding=" in str(caught.value) or "docs/supported_models.md" in str(caught.value)


def test_dynamic_image_size_changes_the_grid():
    space = ClassSpace(build("ViT, dynamic image size"))
    trace = space.trace(torch.randn(1, 3, 48, 80))
    assert trace.grid == (3, 5)
    assert trace.n_tokens == 16


def test_a_model_with_something_else_in_its_stream_is_refused():
    model = build("ViT")
    model.blocks[0].register_forward_hook(lambda _m, _a, out: out + 1)
    with pytest.raises(UnsupportedModelError, match="does not sum"):
        ClassSpace(model)


def test_a_model_with_something_else_before_its_output_is_refused():
    model = build("ViT")
    model.head.register_forward_hook(lambda _m, _a, out: out * 2)
    with pytest.raises(UnsupportedModelError, match="does not give its output"):
        ClassSpace(model)


def test_heads_that_are_not_counted_are_not_taken_for_one():
    """A model of somebody's own making may call them otherwise."""
    model = build("ViT")
    space = ClassSpace(model)
    for block in model.blocks:
        block.attn.n_heads = block.attn.num_heads
        del block.attn.num_heads
        block.attn.forward = partial(renamed, block.attn)
    own = ClassSpace(model)
    ours, theirs = (s.trace(pixels(s), heads=True) for s in (space, own))
    assert torch.allclose(ours.output, theirs.output, atol=1e-5)
    with pytest.raises(UnsupportedModelError, match=r"how many heads it has \(num_heads\)"):
        direct_by_head(own.trace(pixels(own), heads=True), 2, [0])


def renamed(attention, x, **_options):
    """A forward pass that reads ``n_heads``."""
    batch, tokens, width = x.shape
    q, k, v = attention.qkv(x).reshape(batch, tokens, 3, attention.n_heads, -1).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    return attention.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


def rows():
    """The table of supported architectures."""
    yield "| family | for example | answer read from | heads | sources |"
    yield "|---|---|---|---|---|"
    how = {
        "token": "first token",
        "mean_norm": "lens of the mean token",
        "norm_mean": "mean of the tokens' lenses",
        "distilled": "mean of two classifiers",
    }
    reasons: dict[str, str] = {}
    for family in SUPPORTED:
        if family not in available:
            continue
        adapter = adapt(build(family))
        from classspace_widgets.models import attention_parts

        parts = attention_parts(adapter.blocks[0])
        marks = []
        for reason in (parts.split, parts.sources or parts.split):
            marks.append(f"no ({reasons.setdefault(reason, LETTERS[reason])})" if reason else "exact")
        yield "| " + " | ".join([family, f"`{SUPPORTED[family][0]}`", how[adapter.pooling], *marks]) + " |"
    for family, (name, _) in POOLED.items():
        assert not adapt(build(family)).linear
        yield f"| {family} | `{name}` | all tokens, pooled by a module | no (f) | no (f) |"
    yield ""
    yield from (f"- ({letter}) {reason}" for reason, letter in reasons.items())
    yield f"- (f) {POOLED_REASON}"
    yield ""
    yield "## Refused"
    yield ""
    yield 'With the reason; the last two kinds can be given a classifier by `ClassSpace.fit(model, "photos/")`'
    yield "([how](no_classifier.md)), or read through a class embedding of your own (`class_embedding=`)."
    yield ""
    for family, (name, options) in REFUSED.items():
        try:
            adapt(timm.create_model(name, **options))
        except UnsupportedModelError as error:
            told = str(error).removesuffix(f"; {REMEDY}").partition("; pass class_embedding=")[0]
            yield f"- **{family}**: {told}"
    yield ""
    listed = {type(timm.create_model(name, **options)).__name__ for name, options in REFUSED.values()}
    yield "By the names of their classes also: " + ", ".join(f"`{n}`" for n in REASONS if n not in listed) + "."


# By reason, so that a timm without some of the families writes the same lines.
LETTERS = {
    "a norm acts on the heads' outputs before the output projection": "a",
    "a norm acts on what attention adds, after the output projection": "b",
    "a block of type ParallelScalingBlock adds attention and MLP together": "c",
    "a block of type ParallelThingsBlock adds attention and MLP together": "d",
    "differential attention subtracts two attention maps and normalises each head": "e",
}

POOLED_REASON = (
    "a module pools all tokens, which is not linear in them: a token is read as the answer if it were the only one, which "
    "gives logits, ranks, identifiability and its studies, stream readings and interventions; contributions, importance, "
    "memories, views and files of traces are refused"
)

OTHERS = "## Models of other libraries"
"""Where the part of the page begins that tests/convert/test_docs_tables.py writes."""

INTRODUCTION = """# Supported models

Every family below is built small by `tests/core/test_families.py`, with perturbed weights, and its readings are compared with
its own forward pass: increments must sum to the residual stream, and the lens must give the model's answer. Where *heads* are
exact, what attention adds splits by head; where *sources* are exact, also by the token that was read. What is refused is refused
when the model is adapted, and says so in words. For a model that is not here, try it: `ClassSpace(model)` checks the same.

"""


def test_the_table_in_the_docs_is_true():
    """Rewrite it with: CLASSSPACE_WRITE_TABLE=1 python -m pytest tests/core/test_families.py -k table."""
    text = INTRODUCTION + "\n".join(rows()) + "\n"
    if not TABLE.exists() or os.environ.get("CLASSSPACE_WRITE_TABLE"):
        _, others, rest = (TABLE.read_text() if TABLE.exists() else "").partition(OTHERS)
        TABLE.write_text(text + (f"\n{others}{rest}" if others else ""))
    # An older timm lacks some of the families; what it has must read the same.
    assert set(text.splitlines()) <= set(TABLE.read_text().splitlines())


@pytest.mark.parametrize(
    ("family", "prefix"),
    [
        ("ViT", ("[CLS]",)),
        ("SigLIP, GAP", ()),
        ("DeiT, distilled", ("[CLS]", "[DIST]")),
        ("DINOv2 with registers", ("[CLS]", "register 1", "register 2", "register 3", "register 4")),
        ("Registers, GAP", ("register 1", "register 2", "register 3", "register 4")),
    ],
)
def test_tokens_before_the_image_have_names(family, prefix):
    model = build(family)
    assert adapt(model).prefix == prefix
    assert len(prefix) == model.num_prefix_tokens
