"""The numbering of stream points and increments, against a walk through the blocks that counts by hand."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_fixtures import FOLDER, numberings

from classspace_widgets.points import Point, Points, block_name


class Met(NamedTuple):
    """A stream point as the walk meets it: where it is, and which increments it consists of."""

    block: int
    stream: str
    increments: frozenset[int]


def walk(n_blocks: int, layout: str, mid: bool) -> list[Met]:
    """Every stream point in the order of a pass, with sets of increments in place of sums."""
    stream = frozenset([0])
    met, count = [Met(0, "residual", stream)], 1
    for block in range(1, n_blocks + 1):
        for sublayer in ["block"] if layout == "parallel" else ["attention", "mlp"]:
            met.append(Met(block, sublayer, frozenset([count])))
            stream = stream | {count}
            count += 1
            if sublayer == "attention":
                if mid:
                    met.append(Met(block, "mid", stream))
            else:
                met.append(Met(block, "residual", stream))
    return met


models = st.tuples(st.integers(0, 40), st.sampled_from(["sequential", "parallel"]), st.booleans())


@given(models)
def test_points_are_those_of_a_walk_through_the_blocks(model):
    points, met = Points(*model), walk(*model)
    assert len(points) == len(met)
    assert list(points) == [(block, stream) for block, stream, _ in met]
    assert points.n_increments == max(max(one.increments) for one in met) + 1
    for number, (block, stream, increments) in enumerate(met):
        assert points[number] == points[number - len(points)] == (block, stream)
        assert points.number(stream, block) == points.index((block, stream)) == number
        assert points.increment(stream, block) == max(increments)
        if number:
            assert points.is_sum(stream) == (len(increments) > 1)
        assert increments == (set(range(max(increments) + 1)) if points.is_sum(stream) else {max(increments)})
        assert number in points.of_block(block)
    assert [n for block in (0, *points.blocks) for n in points.of_block(block)] == list(range(len(points)))


@given(models)
def test_increments_are_those_of_a_walk_through_the_blocks(model):
    points, met = Points(*model), walk(*model)
    for n in range(points.n_increments):
        [own] = [one[:2] for one in met if one.increments == {n}]
        assert points.added(n) == own
        assert list(points.of_increment(n)) == [at for at, one in enumerate(met) if max(one.increments) == n]
        before = [max(one.increments) for one in met if one.stream == "residual" and one.block == max(own[0] - 1, 0)]
        assert [points.block_input(n)] == before


@given(models, st.data())
def test_streams_are_chosen_in_order(model, data):
    points = Points(*model)
    wanted = data.draw(st.lists(st.sampled_from(points.streams), min_size=1, unique=True))
    expected = [n for n, one in enumerate(walk(*model)) if one.stream in wanted]
    assert points.of_streams(wanted) == expected
    assert points.of_streams(wanted[0]) == points.of_streams(wanted[:1])


@given(st.integers(0, 40), st.sampled_from(["sequential", "parallel"]))
def test_the_count_of_increments_tells_the_blocks(n_blocks, layout):
    points = Points(n_blocks, layout)
    assert Points.of_increments(points.n_increments, layout) == points


def test_two_blocks_as_on_paper():
    """x_0, a_1, mid_1, m_1, x_1, a_2, mid_2, m_2, x_2."""
    named = ["embedding"]
    named += ["block 1 attention", "block 1 mid", "block 1 MLP", "block 1 residual"]
    named += ["block 2 attention", "block 2 mid", "block 2 MLP", "block 2 residual"]
    assert [point.name for point in Points(2)] == named
    assert [Points(2).increment(stream, block) for block, stream in Points(2)] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert Points(2)[1:4] == (Point(1, "attention"), Point(1, "mid"), Point(1, "mlp"))
    parallel = Points(2, "parallel")
    assert [point.name for point in parallel] == [
        "embedding",
        "block 1",
        "block 1 residual",
        "block 2",
        "block 2 residual",
    ]
    assert [parallel.increment(stream, block) for block, stream in parallel] == [0, 1, 1, 2, 2]
    assert [block_name(block) for block in range(3)] == ["embedding", "block 1", "block 2"]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: Points(2, "sideways"), ValueError, "layout must be one of"),
        (lambda: Points(-1), ValueError, "n_blocks must be at least 0, got -1"),
        (lambda: Points(2)[9], IndexError, r"must be in 0\.\.8, got 9"),
        (lambda: Points(2)[-10], IndexError, r"must be in 0\.\.8, got -10"),
        (lambda: Points(2).number("head", 1), ValueError, "stream must be one of .*, got 'head'$"),
        (lambda: Points(2).number("mlp", 0), ValueError, r"block of the mlp stream must be in 1\.\.2, got 0"),
        (lambda: Points(2).number("residual", 3), ValueError, r"must be in 0\.\.2, got 3"),
        (lambda: Points(2).number("residual", 1.5), TypeError, "must be a whole number"),
        (lambda: Points(2, mid=False).increment("mid", 1), ValueError, "got 'mid'$"),
        (lambda: Points(2, "parallel").number("mid", 1), ValueError, "act in parallel"),
        (lambda: Points(2).of_streams(["mlp", "head"]), ValueError, "streams must be some of"),
        (lambda: Points(2).of_streams([]), ValueError, "streams must be some of"),
        (lambda: Points(2).added(5), IndexError, r"must be in 0\.\.4, got 5"),
        (lambda: Points.of_increments(4), ValueError, "the embedding and 2 increments for every block, got 4"),
        (lambda: Points.of_increments(0, "parallel"), ValueError, "got 0 increments"),
    ],
)
def test_what_is_not_there_is_refused_in_words(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_the_shared_fixture_is_what_points_say():
    assert (FOLDER / "points.json").read_text() == numberings()
    for case in json.loads(numberings()):
        met = walk(case["n_blocks"], case["layout"], True)
        assert [(p["block"], p["stream"]) for p in case["points"]] == [one[:2] for one in met]
        assert [p["number"] for p in case["points"]] == list(range(len(met)))
        assert [p["increment"] for p in case["points"]] == [max(one.increments) for one in met]
        own = [[n for n, one in enumerate(met) if one.increments == {i["number"]}] for i in case["increments"]]
        assert [[i["added"]] for i in case["increments"]] == own
        # A sum of readings of increments, made as the numbering says, is that of the sets.
        values = np.random.default_rng(0).normal(size=len(case["increments"]))
        sums = [values[: p["increment"] + 1].sum() if p["is_sum"] else values[p["increment"]] for p in case["points"]]
        assert sums == pytest.approx([sum(values[n] for n in one.increments) for one in met])
