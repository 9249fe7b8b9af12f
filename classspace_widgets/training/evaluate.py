"""Measure a bundled model on held-out scenes and write its card: ``python -m classspace_widgets.training.evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from classspace_widgets.files import write_whole
from classspace_widgets.models.bundled import WEIGHTS, build, load_bundled, read_card
from classspace_widgets.scenes.dataset import ScenesDataset
from classspace_widgets.training.augment import normalise
from classspace_widgets.training.cache import DrawnScenes, draw_all
from classspace_widgets.training.card import model_card
from classspace_widgets.training.phenomena import Places, attention_cut, interval, measure, wilson

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# Seeds of the held-out scenes; the bundled models were trained on seed 1.
OWN, AWAY, PROBE = 2, 3, 4


def accuracy(model: VisionTransformer, scenes: DrawnScenes, *, batch: int = 100) -> tuple[int, int]:
    """Number of correct answers, and of pictures."""
    images, _, classes = scenes
    correct = 0
    for start in tqdm(range(0, len(images), batch), desc="accuracy", mininterval=5):
        part = slice(start, start + batch)
        with torch.inference_mode():
            answers = model(normalise(torch.from_numpy(images[part]))).argmax(-1)
        correct += int((answers == torch.from_numpy(classes[part, 0])).sum())
    return correct, len(images)


def held_out(card: dict[str, Any], *, n: int = 2000, probes: int = 500) -> tuple[ScenesDataset, ...]:
    """Three data sets: scenes like those of training, the same with no main object at home, and probes equal for all models."""
    size, recipe = card["timm"]["img_size"], card["recipe"]
    settings = {"size": size, "distractors": tuple(recipe["distractors"])}
    return (
        ScenesDataset(n, OWN, p_home=recipe["p_home"], **settings),
        ScenesDataset(n, AWAY, p_home=0.0, **settings),
        ScenesDataset(probes, PROBE, size=size, p_home=0.5, distractors=(1, 2)),
    )


def _summary(places: Places) -> dict[str, Any]:
    """Mean and interval for every place and stream, and for paired differences of places in the last stream."""
    summary: dict[str, Any] = {}
    for name in ("main_on_main", "main_on_context", "main_on_others", "others_on_others"):
        values = getattr(places, name)
        summary[name] = [[round(x, 4) for x in interval(values[:, i])] for i in range(values.shape[1])]
    last = {
        "main minus context": places.main_on_main[:, -1] - places.main_on_context[:, -1],
        "own minus main, on others": places.others_on_others[:, -1] - places.main_on_others[:, -1],
        "last block minus first input": places.main_on_main[:, -1] - places.main_on_main[:, 0],
    }
    summary["differences"] = {name: [round(x, 4) for x in interval(values)] for name, values in last.items()}
    summary["accuracy"] = [round(x, 4) for x in wilson(int(places.correct.sum()), len(places.correct))]
    return summary


def evaluate(
    model: VisionTransformer, card: dict[str, Any], *, n: int = 2000, probes: int = 500, cache: Path | None = None
) -> dict[str, Any]:
    """Accuracy on `n` scenes like those of training and on `n` with no object at home; identifiability on `probes` scenes."""
    own, away, probe = (draw_all(data, cache) for data in held_out(card, n=n, probes=probes))
    torch.manual_seed(0)
    twin = build(card["timm"]).eval()
    measured = {
        "own": [round(x, 4) for x in wilson(*accuracy(model, own))],
        "away": [round(x, 4) for x in wilson(*accuracy(model, away))],
        "n": n,
        "probes": probes,
        "trained": _summary(measure(model, probe)),
        "random": _summary(measure(twin, probe)),
    }
    with attention_cut(model):
        measured["cut"] = _summary(measure(model, probe))
    return measured


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m classspace_widgets.training.evaluate", description=__doc__)
    parser.add_argument("--variant", default="default")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of weights and cards")
    parser.add_argument("--n", type=int, default=2000, help="held-out scenes for accuracy")
    parser.add_argument("--probes", type=int, default=500, help="held-out scenes for identifiability")
    parser.add_argument("--cache", type=Path, help="folder for drawn pictures")
    parser.add_argument("--note", action="append", default=[], help="a line for the card")
    given = parser.parse_args(arguments)
    card = read_card(given.variant, given.weights)
    model = load_bundled(given.variant, folder=given.weights)
    card["notes"] = given.note or card.get("notes", [])
    card["evaluation"] = evaluate(model, card, n=given.n, probes=given.probes, cache=given.cache)
    write_whole(given.weights / f"{given.variant}.json", (json.dumps(card, indent=1) + "\n").encode())
    write_whole(given.weights / f"{given.variant}.md", model_card(card).encode())


if __name__ == "__main__":
    main()
