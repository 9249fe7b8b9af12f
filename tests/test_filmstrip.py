"""Rows of small maps: what stands where, and in which colour."""

from __future__ import annotations

import numpy as np
import pytest
from make_fixtures import synthetic

from classspace_widgets.snapshot.filmstrip import LINE, MARGIN, filmstrip, map_row, picture_row
from classspace_widgets.snapshot.still import viridis


def pixel(picture, x, y):
    return np.asarray(picture)[y, x, :3].tolist()


def test_maps_stand_side_by_side_in_their_own_colours():
    maps = [np.array([[0.0, 1.0]]), np.array([[0.5, 0.25]])]
    row = map_row(None, maps, ["a", "b"], limits=(0, 1), size=40)
    assert row.size == (80 + MARGIN, LINE + 20)
    for i, values in enumerate(maps):
        for j, value in enumerate(values[0]):
            at = pixel(row, i * (40 + MARGIN) + 20 * j + 10, LINE + 10)
            assert at == viridis(np.array(value)).tolist()


def test_signed_maps_show_their_sign_and_their_own_scale():
    row = map_row(None, [np.array([[4.0, -4.0, 0.0, -1.0]])], ["x"], size=40)
    red, blue, grey, pale = (pixel(row, 10 * j + 5, LINE + 5) for j in range(4))
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 100
    assert grey == [236, 236, 236]
    assert blue[0] < pale[0] < grey[0]


def test_the_picture_shows_through():
    picture = np.full((8, 8, 3), 200, np.uint8)
    row = map_row(picture, [np.zeros((2, 2))], [""], limits=(0, 1), size=20, strength=0.5)
    expected = (200 + viridis(np.array(0.0)).astype(float)) / 2
    assert np.abs(np.array(pixel(row, 10, 10)) - expected).max() <= 1


def test_each_map_may_lie_on_its_own_picture():
    pictures = [np.full((4, 4, 3), level, np.uint8) for level in (10, 240)]
    row = map_row(pictures, [np.zeros((2, 2))] * 2, ["", ""], size=20, strength=0.0)
    assert pixel(row, 5, 5) == [10, 10, 10]
    assert pixel(row, 20 + MARGIN + 5, 5) == [240, 240, 240]
    assert np.array_equal(np.asarray(row), np.asarray(picture_row(pictures, ["", ""], size=20)))


def test_words_keep_to_their_place_and_can_be_read_on_any_ground():
    picture = np.zeros((4, 4, 3), np.uint8)
    row = np.asarray(picture_row([picture] * 2, ["a caption that is much longer than its picture", ""], size=60))
    words = row[:LINE, :, 3]
    assert words[:, :60].any()
    assert not words[:, 60:].any()
    assert picture_row([picture], [""], size=60).height == 60
    assert {tuple(ink) for ink in row[:LINE][words == 255][:, :3].tolist()} == {(0x73, 0x7B, 0x86)}


def test_a_strip_reads_the_blocks_that_are_asked_for():
    snapshot = synthetic("all")
    name = snapshot.class_names[2]
    whole, last = filmstrip(snapshot, [0, name]), filmstrip(snapshot, name, blocks=[snapshot.n_blocks])
    # One title for each class; the last picture of the second row is the strip of the last block alone.
    small = last.crop((0, 2 * LINE, last.width, last.height))
    found = whole.crop((whole.width - last.width, whole.height - small.height, whole.width, whole.height))
    assert np.array_equal(np.asarray(found), np.asarray(small))
    other = filmstrip(snapshot, 0, blocks=[snapshot.n_blocks])
    assert not np.array_equal(np.asarray(other), np.asarray(last))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: filmstrip(synthetic("all"), 0, blocks=[99]), "block must be in 0.."),
        (lambda: map_row(None, [np.zeros(3)], ["a"]), "shape"),
        (lambda: map_row(None, [np.zeros((2, 2))], []), "caption"),
    ],
)
def test_mistakes_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
