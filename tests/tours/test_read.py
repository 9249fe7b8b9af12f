"""Tours as files: what is read, and what is refused with its line."""

from __future__ import annotations

import re

import pytest
from make_fixtures import synthetic

from classspace_widgets.state import STATE
from classspace_widgets.tours import as_tours, read_tour
from classspace_widgets.tours.conditions import assignments, conditions
from classspace_widgets.tours.text import runs
from classspace_widgets.tours.vocabulary import FACTS

GOOD = """# A tour

What it is *about*.

## First

Do **this**,
and `that` <b>now</b>.

- target: layer slider
- begin: block = 0, class = {name}, tokens = 3,4, head = 1,0
- until: class = {name} and block >= 1
- done: It was
  done.

## Second
Only look.
- target: picture
- until: next
"""


def good(snapshot=None) -> str:
    return GOOD.format(name=(snapshot or synthetic("all")).class_names[2])


def test_a_tour_is_read_as_it_stands():
    snapshot = synthetic("all")
    tour = read_tour(good())
    assert (tour.name, tour.title, tour.intro[1]) == ("a-tour", "A tour", ("em", "about"))
    first, second = tour.steps
    assert first.text == [("", "Do "), ("strong", "this"), ("", ", and "), ("code", "that"), ("", " <b>now</b>.")]
    assert first.done == [("", "It was done.")]
    assert (second.until, second.begin, second.done) == ((), (), [])
    assert first.lines == {"title": 5, "target": 10, "begin": 11, "until": 12, "done": 13}
    travelling = tour.for_snapshot(snapshot, live=False)
    assert travelling["steps"][0]["until"] == [["class", "=", 2], ["block", ">=", 1]]
    assert travelling["steps"][0]["begin"] == {
        "block": 0, "sublayer": "embedding", "class_index": 2, "tokens": [3, 4], "head": [1, 0],
    }  # fmt: skip


# A line to write in place of another, the line that is told, and words of the message.
WRONG = [
    ("# A tour", "A tour", 1, "expected # and the title of the tour"),
    ("## First", "# First", 5, "expected ## and the title of a step"),
    ("- target: layer slider", "- target: layer slidr", 10, "close matches: layer slider"),
    ("- target: layer slider", "- targe: layer slider", 10, "close matches: target"),
    ("- target: layer slider", "", 5, "add a line such as - target: layer slider"),
    ("- target: picture", "- target:", 18, "target is empty"),
    ("- until: next", "- until: next\n- until: next", 20, "stands twice"),
    ("- until: next", "- until: nxt", 19, "to wait for nothing write next"),
    ("- until: next", "- until: blok = 3", 19, "close matches: block"),
    ("- until: next", "- until: block = deep", 19, "must be a whole number, got 'deep'"),
    ("- until: next", "- until: reading = rnk", 19, "close matches: rank"),
    ("- until: next", "- until: reading >= rank", 19, "can be compared with = and != only"),
    ("- until: next", "- until: selected object >= 120%", 19, "must be a percentage"),
    ("- until: next", "- until: head = 3", 19, "a block and a head"),
    ("- until: next", "- until: tokens = here", 19, "row and column from 1"),
    ("- until: next", "- begin: rank = 0\n- until: next", 19, "follows from others and cannot be set"),
    ("- until: next", "- begin: block > 0\n- until: next", 19, "write block = ..."),
    ("- until: next", "", 16, "add a line such as - until"),
    ("Only look.", "", 16, "no sentence"),
    ("- until: next", "- until: next\nAnd more.", 20, "sentences stand before the list"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "instead", "told", "words"), WRONG)
def test_what_is_wrong_is_told_with_its_line(line, instead, told, words):
    text = good()
    assert text.count(f"{line}\n") >= 1
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        read_tour(text.replace(f"{line}\n", f"{instead}\n", 1))
    assert f"line {told}:" in str(caught.value)


BESIDE = [
    ("class = unicorn", "no class is called 'unicorn'"),
    ("block = 99", "block must be in 0.."),
    ("head = 99,0", "head must be a block in"),
    ("tokens = 999", "tokens must be in 0.."),
    ("tokens = patch 99,1", "a patch must be in rows 1.."),
    ("lens = mine", "has no lens 'mine'; it has logit"),
    ("what-if = remove", "live=True"),
]


@pytest.mark.parametrize(("condition", "words"), BESIDE)
def test_what_a_picture_does_not_have_is_told_with_its_line(condition, words):
    tour = read_tour(good().replace("until: next", f"until: {condition}"))
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        tour.for_snapshot(synthetic("all"), live=False)
    assert re.search(r"tour, line 1[69]: step 2 \(Second\)", str(caught.value))


def test_an_object_must_be_known():
    tour = read_tour(good().replace("until: next", "until: selected object >= 80%"))
    snapshot = synthetic("all")
    snapshot.arrays.pop("mask", None)
    with pytest.raises(ValueError, match="has no mask: give one"):
        tour.for_snapshot(snapshot, live=True)


def test_every_value_of_the_address_can_be_waited_for():
    own = {entry.address for entry in STATE.values() if entry.address} - {"tour", "step"}
    assert own == {name for name, fact in FACTS.items() if fact.state}
    assert all(fact.help for fact in FACTS.values())


def test_and_and_commas_may_stand_in_names():
    assert [c.text for c in conditions("class = salt and pepper and block = 1")] == ["salt and pepper", "1"]
    assert [c.text for c in assignments("class = tench, Tinca tinca, block = 1")] == ["tench, Tinca tinca", "1"]


def test_nothing_but_emphasis_and_code_is_markup():
    text = "[a](javascript:x) ![b](c) <script>alert(1)</script> &lt; *x*"
    assert [piece for piece in runs(text) if piece[0]] == [("em", "x")]
    assert "<script>alert(1)</script> <" in runs(text)[0][1]


def test_files_names_and_lists(tmp_path):
    path = tmp_path / "My lesson.md"
    path.write_text(good(), encoding="utf-8")
    assert read_tour(path).name == "my-lesson"
    assert [tour.name for tour in as_tours(["four-ways", path, read_tour(good())])] == [
        "four-ways",
        "my-lesson",
        "a-tour",
    ]
    with pytest.raises(ValueError, match="two tours are called 'my-lesson'"):
        as_tours([path, path])
    with pytest.raises(FileNotFoundError, match="close matches: four-ways"):
        read_tour("four-way")
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"My lesson.md, line 1: expected # and the title"):
        read_tour(path)
