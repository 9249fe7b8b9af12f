"""Every sentence of the tours of the package is true of the model and the picture that they are told of.

What is claimed is computed here from traces, not through the tours' own code; the numbers that a sentence gives are those
computed, in its own words.
"""

from __future__ import annotations

import numpy as np
import pytest

from classspace_widgets import ClassSpace
from classspace_widgets.interventions import Ablate, RemoveTokens, trace_with
from classspace_widgets.metrics import direct_by_head
from classspace_widgets.scenes import gallery
from classspace_widgets.tours import BUNDLED, read_tour
from classspace_widgets.tours.text import plain

FISH = "fish"
MIDDLE = 1 + 6 * 12 + 5
"""The token of the patch in row 7, column 6, behind [CLS]."""


class World:
    """The picture of the tours, seen by the default model."""

    def __init__(self) -> None:
        self.space = ClassSpace.bundled(device="cpu")
        self.scene = gallery()[0]
        self.trace = self.space.trace(self.scene.picture, attention=True, heads=True)
        inside = (self.scene.patch_mask(self.trace.grid)[0] >= 0.5).ravel()
        self.object = (1 + np.flatnonzero(inside)).tolist()
        self.context = (1 + np.flatnonzero(~inside)).tolist()

    def ranks(self, block: int, stream: str = "residual") -> np.ndarray:
        return self.trace.ranks(stream, block, classes=[FISH]).numpy().ravel()

    def first(self, intervention=None):
        """Names, rounded percentages and logits of the first three classes."""
        trace = self.trace if intervention is None else trace_with(self.space, self.trace, intervention)
        table = trace.predictions(k=3)
        return list(table["class_name"]), [f"{p:.0%}".replace("%", " %") for p in table["probability"]], table

    def attention(self, block: int, head: int) -> np.ndarray:
        """Weights that [CLS] gives to all tokens, as the snapshot's arrays have them."""
        arrays, meta = self.trace.snapshot().arrays, self.trace.snapshot().meta["attention"]
        return (arrays["attention"][block - 1, head, meta["rows"].index(0)] / 255.0) ** 2

    def fish_logit(self, intervention=None) -> float:
        trace = self.trace if intervention is None else trace_with(self.space, self.trace, intervention)
        return float(trace.logits("residual", -1, classes=[FISH], tokens=[0]))

    def heads(self) -> np.ndarray:
        """What every head adds to the fish at [CLS], [L, H]."""
        return direct_by_head(self.trace, None, FISH)[0][:, 0, :, 0, 0].numpy()


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def patches(w: World) -> list[str]:
    rows, columns = w.trace.grid
    assert w.scene.picture.size == (8 * columns, 8 * rows)
    return [f"{rows * columns} patches of 8 × 8 pixels"]


def none_at_first(w: World) -> list[str]:
    image = w.ranks(0)[1:]
    assert (image > 0).all()
    assert w.ranks(0)[0] > 0  # else the next step would be done before it began
    return [f"Not one of the {len(image)} patches"]


def appears(w: World) -> list[str]:
    places = [(0, "residual"), *((b, s) for b in range(1, w.trace.n_blocks + 1) for s in ("mid", "residual"))]
    ranks = [w.ranks(b, s)[0] for b, s in places]
    first = ranks.index(0)
    assert not any(ranks[first:])
    block, stream = places[first]
    assert stream == "mid"
    return [f"from the attention of block {block} on"]


def all_patches(w: World) -> list[str]:
    ranks = w.ranks(w.trace.n_blocks)
    assert (ranks[w.object] == 0).all()
    around = (ranks[w.context] == 0).sum()
    return [
        f"block {w.trace.n_blocks}",
        f"All {len(w.object)} patches",
        f"{around} of the {len(w.context)} patches around",
    ]


def others(w: World) -> list[str]:
    top = w.trace.top_k(1, block=w.trace.n_blocks)[1].numpy().ravel()[w.context]
    name = w.space.class_names[np.bincount(top).argmax()]
    assert not {"water", "sea"} & set(w.space.class_names)
    return [f"{np.bincount(top).max()} of the {len(w.context)} patches around the fish name {name}."]


def strongest(w: World) -> list[str]:
    block, head = np.unravel_index(w.heads().argmax(), w.heads().shape)
    assert w.attention(block + 1, head)[w.object].sum() > 0.99
    return [f"head {head} of block {block + 1}", "more than 99 %"]


def marked(w: World) -> list[str]:
    return [f"exactly its {len(w.object)} patches"]


def without(w: World) -> list[str]:
    names, shares, _ = w.first(RemoveTokens(w.object))
    assert names[2] == FISH
    # The claim does not hang on who draws the box how.
    mask = np.zeros(w.trace.grid, dtype=bool).ravel()
    mask[np.array(w.object) - 1] = True
    rows, columns = np.nonzero(mask.reshape(w.trace.grid))
    box = [1 + 12 * r + c for r in range(rows.min(), rows.max() + 1) for c in range(columns.min(), columns.max() + 1)]
    assert w.first(RemoveTokens(box))[0][0] == names[0]
    return [f"Now it says {names[0]} ({shares[0]})"]


def change(w: World) -> list[str]:
    return [f"from {w.fish_logit():.1f} to {w.fish_logit(RemoveTokens(w.object)):.1f}"]


def middle(w: World) -> list[str]:
    assert MIDDLE in w.object
    assert w.ranks(w.trace.n_blocks)[MIDDLE] == 0
    return ["row 7, column 6"]


def sends(w: World) -> list[str]:
    arrays = w.trace.snapshot().arrays
    values = arrays["value_raw"][w.space.class_names.index(FISH), 6, 0].astype(float)
    sent = w.attention(7, 0) * values
    assert sent.argmax() == MIDDLE
    return ["head 0 of block 7", f"{100 * sent[MIDDLE] / sent.sum():.0f} % of what this head brings"]


def looks(w: World) -> list[str]:
    weights = w.attention(7, 0)
    assert weights.argmax() == MIDDLE
    return [f"{100 * weights[MIDDLE]:.0f} % of it"]


def spared(w: World) -> list[str]:
    names, shares, _ = w.first(RemoveTokens([MIDDLE]))
    assert w.fish_logit(RemoveTokens([MIDDLE])) >= w.fish_logit()
    return [f"still {names[0]} ({shares[0]})"]


def headless(w: World) -> list[str]:
    names, shares, _ = w.first(Ablate("head", blocks=[7], heads=[0]))
    return [f"Still {names[0]} ({shares[0]})"]


def gone(w: World) -> list[str]:
    names, shares, _ = w.first(RemoveTokens(w.object))
    return [f"all {len(w.object)} patches", f"Now it says {names[0]} ({shares[0]})"]


def kept(w: World) -> list[str]:
    names, shares, _ = w.first(RemoveTokens(w.object, outside=True))
    return [f"{names[0]} ({shares[0]}), from {len(w.object)} of {len(w.object) + len(w.context)} patches"]


def nothing(w: World) -> list[str]:
    return []


CLAIMS = {
    "makes-up-its-mind": {
        "A picture in patches": patches,
        "Before the first block": none_at_first,
        "Where the fish appears": appears,
        "What every patch knows": all_patches,
        "What the others say": others,
        "Which head brings it?": strongest,
        "Mark the fish": marked,
        "Take it away": without,
        "Before and after": change,
        "Your turn": nothing,
    },
    "four-ways": {
        "Ask the patch": middle,
        "Ask what it sends": sends,
        "Ask where the answer looks": looks,
        "Take it away": spared,
        "Take the head away": headless,
        "Take all of it away": gone,
        "Keep nothing else": kept,
        "What to believe": nothing,
    },
}


@pytest.mark.parametrize("name", BUNDLED)
def test_every_step_says_what_is_computed(name, world):
    tour = read_tour(name)
    assert [step.title for step in tour.steps] == list(CLAIMS[name])
    assert 8 <= len(tour.steps) <= 10
    for step in tour.steps:
        words = f"{plain(step.text)} {plain(step.done)}"
        for claimed in CLAIMS[name][step.title](world):
            assert claimed in words, f"{step.title}: computed {claimed!r}, written {words!r}"


@pytest.mark.parametrize("name", BUNDLED)
def test_it_fits_the_picture_that_it_is_told_of(name, world):
    snapshot = world.trace.snapshot(**world.scene.annotations)
    travelling = read_tour(name).for_snapshot(snapshot, live=True)
    assert travelling["steps"][0]["begin"]["class_index"] == world.space.class_names.index(FISH)
    with pytest.raises(ValueError, match="needs the model"):
        read_tour(name).for_snapshot(snapshot, live=False)
