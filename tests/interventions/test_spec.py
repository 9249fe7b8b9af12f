from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from classspace_widgets.interventions import (
    Ablate,
    AddVector,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
    from_spec,
    to_spec,
)
from classspace_widgets.interventions.base import Intervention, to_code
from classspace_widgets.interventions.tokens import Sizes, grid_mask

SIZES = Sizes(blocks=3, heads=2, tokens=10, prefix=1, grid=(3, 3), classes=5)

EXAMPLES = [
    RemoveTokens(tokens=[5, 4, 5]),
    RemoveTokens(tokens=range(1, 8)),
    RemoveTokens(box=(0, 0, 2, 2), outside=True),
    MaskTokens(mask=np.eye(3), mode="mean"),
    KnockOutAttention("no_cls"),
    KnockOutAttention("self_only", blocks=range(1, 3), renormalise=True),
    KnockOutAttention("no_others", heads=[0]),
    KnockOutAttention("self_unscaled"),
    KnockOutAttention("edges", readers=[0], sources=[3, 4], heads=1),
    Ablate("attention", blocks=2),
    Ablate("head", blocks=[1, 3], heads=[0, 1], mode="mean"),
    Ablate("mlp", mode="resample", source="donor"),
    PatchResidual(2, tokens=[1, 2], source="donor"),
    PatchResidual(0, tokens=3, source=(1, 4)),
    PatchResidual(3, tokens=3, source="donor", source_block=1, source_token=5),
    PatchResidual(source_block=1, target_block=2, source_token=5, tokens=3),
    RemoveTokens(norm_above=2.5, source="donor"),
    MaskTokens(norm_above=2, norm_block=3, mode="mean"),
    AddVector(2, np.array([0.5, -1.0]), tokens=[1, 2]),
    AddVector(0, [1, 2, 3]),
    ReplaceClassEmbedding(classes=[3, 1], by=[1, 3]),
    ReplaceClassEmbedding(classes=2, vectors=[[0.5, -1.0]]),
]


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: one.to_code())
def test_round_trips_through_json_and_code(one):
    one.check(SIZES)
    assert Intervention.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    names = {cls.__name__: cls for cls in Intervention.registry.values()}
    assert eval(one.to_code(), names) == one
    assert hash(one) == hash(Intervention.from_dict(one.to_dict()))


def test_spec_and_code_of_a_list():
    assert from_spec(json.loads(json.dumps(to_spec(EXAMPLES)))) == EXAMPLES
    code = to_code(EXAMPLES[:5])
    assert (
        "from classspace_widgets.interventions import KnockOutAttention, MaskTokens, RemoveTokens, trace_with" in code
    )
    compile(code, "code", "exec")
    assert "sources={'donor': donor}" in to_code([Ablate("mlp", mode="resample", source="donor")])


def test_tokens_are_selected_in_the_full_sequence():
    assert RemoveTokens(box=(0, 1, 2, 3)).select(SIZES) == (2, 3, 5, 6)
    assert RemoveTokens(box=(0, 1, 2, 3), outside=True).select(SIZES) == (1, 4, 7, 8, 9)
    assert RemoveTokens(mask=np.eye(3)).select(SIZES) == (1, 5, 9)
    big = np.kron(np.eye(3), np.ones((5, 7)))
    assert RemoveTokens(mask=big).select(SIZES) == (1, 5, 9)


@pytest.mark.parametrize("kind", [RemoveTokens, MaskTokens])
def test_a_mask_is_every_object_or_those_chosen(kind):
    mask = np.zeros((6, 6), np.uint8)
    mask[:2, :2], mask[2:4, 2:4], mask[4:, 4:] = 1, 2, 5

    def chosen(**options):
        return kind(mask=mask, **options).select(SIZES)

    assert chosen() == (1, 5, 9)
    assert chosen(objects=1) == chosen(objects=[1]) == (1,)
    assert chosen(objects=[2, 5]) == (5, 9)
    assert chosen(objects=[2], outside=True) == (1, 2, 3, 4, 6, 7, 8, 9)
    made = kind(mask=mask, objects=[2])
    assert Intervention.from_dict(json.loads(json.dumps(made.to_dict()))) == made == kind(mask=mask == 2)
    assert kind(mask=mask == 2, objects=[1]).select(SIZES) == (5,)
    with pytest.raises(ValueError, match=r"numbers that occur in the mask \(1, 2, 5\), got \[3, 4\]"):
        chosen(objects=[1, 3, 4])
    with pytest.raises(ValueError, match=r"numbers that occur in the mask \(none\), got \[1\]"):
        kind(mask=np.zeros((3, 3)), objects=[1])
    with pytest.raises(ValueError, match="objects must be at least 1, got 0"):
        chosen(objects=[0])
    with pytest.raises(ValueError, match="objects= selects objects of mask=, which is missing"):
        kind(tokens=[1], objects=[1])


def test_grid_mask_counts_coverage():
    picture = np.zeros((7, 10))
    picture[:4, :5] = 1
    slow = np.zeros((2, 3), bool)
    rows, columns = [0, 4, 7], [0, 3, 7, 10]
    for i in range(2):
        for j in range(3):
            slow[i, j] = picture[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].mean() >= 0.5
    np.testing.assert_array_equal(grid_mask(picture, (2, 3)), slow)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RemoveTokens(), "exactly one of tokens, box, mask and norm_above"),
        (lambda: RemoveTokens(tokens=[]), "tokens is empty"),
        (lambda: RemoveTokens(tokens=[0]).check(SIZES), "prefix tokens cannot be removed"),
        (lambda: RemoveTokens(tokens=[10]).check(SIZES), r"tokens must be in 0..9"),
        (lambda: RemoveTokens(tokens=-1), "at least 0"),
        (lambda: RemoveTokens(box=(0, 0, 3, 3)).check(SIZES), "every image token"),
        (lambda: RemoveTokens(box=(0, 0, 4, 3)).check(SIZES), "does not fit the grid"),
        (lambda: RemoveTokens(mask=np.zeros((3, 3))).check(SIZES), "no token is chosen"),
        (lambda: RemoveTokens(mask=np.zeros(3)), "mask must have shape"),
        (lambda: MaskTokens(tokens=1, mode="noise"), "mode must be one of"),
        (lambda: KnockOutAttention("nothing"), "kind must be one of"),
        (lambda: KnockOutAttention("edges"), "needs readers, sources or both"),
        (lambda: KnockOutAttention("self_unscaled", renormalise=True), "is 'self_only'; use that kind"),
        (lambda: KnockOutAttention("no_cls", readers=[1]), "belong to kind='edges'"),
        (lambda: KnockOutAttention("no_cls", blocks=[4]).check(SIZES), r"blocks must be in 1..3"),
        (lambda: KnockOutAttention("no_cls", blocks=[0]), "at least 1"),
        (lambda: KnockOutAttention("no_cls", heads=[2]).check(SIZES), r"heads must be in 0..1"),
        (lambda: Ablate("attention", heads=[1]), "heads belong to sublayer='head'"),
        (lambda: Ablate("mlp", mode="resample"), "needs a source"),
        (lambda: Ablate("mlp", source="x"), "takes no source"),
        (lambda: PatchResidual(4, source="x").check(SIZES), r"block must be in 0..3"),
        (lambda: PatchResidual(1), "needs a source"),
        (lambda: PatchResidual(2, source="x", source_block=4).check(SIZES), r"source_block must be in 0..3, got 4"),
        (lambda: PatchResidual(-1, source="x"), "target_block must be an integer of at least 0"),
        (lambda: PatchResidual(1, source=(0, 2), source_block=2), "is not computed yet after block 1"),
        (lambda: PatchResidual(1, source_token=2, source_block=2), "is not computed yet after block 1"),
        (lambda: PatchResidual(1, source=(0, 2), source_token=2), "names a token already; leave source_token out"),
        (lambda: PatchResidual(1, source_token=10).check(SIZES), "tokens must be in"),
        (lambda: RemoveTokens(norm_above=0), "norm_above must be above 0"),
        (lambda: RemoveTokens(tokens=[4], norm_block=2), "belong to norm_above"),
        (lambda: AddVector(4, [1.0]).check(SIZES), r"block must be in 0..3"),
        (lambda: AddVector(-1, [1.0]), "block must be an integer of at least 0"),
        (lambda: AddVector(1, [[1.0, 2.0]]), r"vector must be \[D\] finite numbers, got shape \[1, 2\]"),
        (lambda: AddVector(1, [np.nan]), "finite numbers"),
        (lambda: AddVector(1, [1.0, 2.0]).check(replace(SIZES, width=3)), "width D=3 of a token, got 2"),
        (lambda: AddVector(1, [1.0], tokens=[10]).check(SIZES), "tokens must be in"),
        (lambda: PatchResidual(1, source=(0, 10)).check(SIZES), "tokens must be in"),
        (lambda: ReplaceClassEmbedding(classes=[5], by=[0]).check(SIZES), r"classes must be in 0..4"),
        (lambda: ReplaceClassEmbedding(classes=[1]), "exactly one of by and vectors"),
        (lambda: ReplaceClassEmbedding(classes=[1, 2], by=[0]), "need as many replacements"),
        (lambda: Intervention.from_dict({"type": "Boil"}), "type must be one of"),
        (lambda: Intervention.from_dict({"type": "Ablate", "sublayer": "mlp", "x": 1}), "has no 'x'"),
        (lambda: Intervention.from_dict({"type": "Ablate"}), "needs 'sublayer'"),
        (lambda: from_spec([{"type": "Ablate", "sublayer": "mlp"}, {"type": "Ablate"}]), "intervention 2 of 2"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_wrong_types_are_refused():
    for build in (
        lambda: RemoveTokens(tokens=[True, False]),
        lambda: RemoveTokens(tokens="12"),
        lambda: from_spec({"type": "Ablate"}),
        lambda: Intervention.from_dict("Ablate"),
    ):
        with pytest.raises(TypeError):
            build()


def test_a_trace_cannot_be_written_down():
    with pytest.raises(ValueError, match="give the source a name"):
        PatchResidual(1, source=object()).to_dict()
