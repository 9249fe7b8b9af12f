"""Pack a trained model of photographs for the package: choose its classes, measure it, write weights and card.

``python -m classspace_widgets.training.photos.ship --data FOLDER --checkpoint FILE --names CLASSES.json --kept-apart FOLDER``, and after it
``python -m classspace_widgets.training.lenses photos --photographs FOLDER``, put another checkpoint into the package.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classspace_widgets.files import write_whole
from classspace_widgets.models.bundled import WEIGHTS, save
from classspace_widgets.models.bundled import build as build_bundled
from classspace_widgets.training.photos.augment import MEAN, STD, normalise
from classspace_widgets.training.photos.card import model_card
from classspace_widgets.training.photos.data import Photographs, read
from classspace_widgets.training.photos.train import Recipe, build, mean_weights
from classspace_widgets.training.photos.unsure import thresholds, told

FEWEST = 60
"""Classes that are kept at least."""


def all_logits(model: torch.nn.Module, photographs: Photographs) -> Tensor:
    """Logits [N, C] of every picture as it is."""
    model.eval()
    with torch.inference_mode():
        return torch.cat(
            [
                model(normalise(torch.from_numpy(photographs.pixels[start : start + 500]))).float()
                for start in range(0, len(photographs.labels), 500)
            ]
        )


def choose_classes(logits: Tensor, labels: NDArray[np.int64], goal: float, fewest: int = FEWEST) -> list[int]:
    """The classes to keep: the one told worst goes first, until the others are told with an accuracy of ``goal``.

    Parameters
    ----------
    logits : Tensor [N, C]
        Of the validation part: pictures that were neither trained on nor will be reported on.
    labels : ndarray [N]
    goal : float
        Top-1 accuracy among the classes kept, in [0, 1].
    fewest : int
        Where to stop in any case.

    Returns
    -------
    list of int
        Classes in their order.
    """
    kept = list(range(logits.shape[1]))
    while len(kept) > fewest:
        rows = np.isin(labels, kept)
        own = np.searchsorted(kept, labels[rows])
        right = logits[torch.from_numpy(rows)][:, kept].argmax(1).numpy() == own
        if right.mean() >= goal:
            break
        by_class = np.bincount(own, weights=right, minlength=len(kept)) / np.bincount(own, minlength=len(kept))
        kept.pop(int(by_class.argmin()))
    return kept


def bootstrap_interval(hits: NDArray[np.bool_], level: float = 0.95, seed: int = 0) -> list[float]:
    """Interval of a share of pictures, by resampling the pictures."""
    draws = np.random.default_rng(seed).binomial(len(hits), hits.mean(), 10_000) / len(hits)
    return [round(float(edge), 4) for edge in np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])]


def measure(logits: Tensor, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Top-1 and top-5 accuracy with intervals."""
    found: dict[str, Any] = {"pictures": len(labels)}
    best = logits.topk(min(5, logits.shape[1])).indices == torch.from_numpy(labels)[:, None]
    for name, k in (("top1", 1), ("top5", 5)):
        hits = best[:, :k].any(1).numpy()
        found[name] = round(float(hits.mean()), 4)
        found[f"{name}_interval"] = bootstrap_interval(hits)
    return found


def subset(photographs: Photographs, folders: list[str]) -> Photographs:
    """The pictures of some class folders, numbered in their order."""
    labels = numbered(photographs, folders)
    chosen = labels >= 0
    return Photographs(photographs.pixels[chosen], labels[chosen], tuple(folders))


def numbered(photographs: Photographs, folders: list[str]) -> NDArray[np.int64]:
    """The class of each picture among those of some folders; -1 for other pictures."""
    own = np.array([folders.index(folder) if folder in folders else -1 for folder in photographs.folders])
    return own[photographs.labels]


def ship(
    data: Photographs, checkpoint: dict[str, Any], recipe: Recipe, names: dict[str, str], *, goal: float
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model to be shipped, of the classes that it tells, and the start of its card."""
    _, validation = data.split(recipe.held_back)
    model = build(recipe, len(data.folders))
    model.load_state_dict(checkpoint["averaged"])
    kept = choose_classes(all_logits(model, validation), validation.labels, goal)
    folders = [data.folders[i] for i in kept]
    shipped = build_bundled(recipe.timm, classes=[names[folder] for folder in folders], mean=MEAN, std=STD)
    state = dict(checkpoint["averaged"])
    state |= {f"head.{part}": state[f"head.{part}"][kept] for part in ("weight", "bias")}
    # As it will be read: from float16.
    shipped.load_state_dict({name: tensor.half().float() for name, tensor in state.items()})
    own = subset(validation, folders)
    logits = all_logits(shipped, own)
    card = {
        "variant": "photos",
        "trained_on": "photographs",
        "timm": recipe.timm,
        "classes": [names[folder] for folder in folders],
        "wordnet_ids": folders,
        "mean": list(MEAN),
        "std": list(STD),
        "trained_steps": checkpoint["step"],
        "seconds": round(checkpoint["seconds"]),
        "training": {"classes": len(data.folders), "pictures": len(data.labels) - len(validation.labels)},
        "goal": goal,
        "validation": measure(logits, own.labels),
        "unsure": thresholds(logits.numpy(), own.labels),
    }
    return shipped, card


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m classspace_widgets.training.photos.ship", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="what the model was trained on")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        required=True,
        help="cooled.pt of a run, beside its cooled.json; of several the mean is taken, and the card tells of the first",
    )
    parser.add_argument("--names", type=Path, required=True, help="JSON list of {wnid, name}")
    parser.add_argument(
        "--kept-apart", type=Path, required=True, help="class folders to measure on, of these classes and of others"
    )
    parser.add_argument("--goal", type=float, default=0.65, help="validation accuracy until which classes are dropped")
    parser.add_argument("--note", action="append", default=[], help="a line for the card")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args(arguments)
    checkpoint = torch.load(given.checkpoint[0], map_location="cpu", weights_only=True)
    checkpoint["averaged"] = mean_weights(given.checkpoint)
    report = json.loads(given.checkpoint[0].with_suffix(".json").read_text())
    names = {entry["wnid"]: entry["name"] for entry in json.loads(given.names.read_text())}
    recipe = Recipe(**report["recipe"])
    model, card = ship(read(given.data), checkpoint, recipe, names, goal=given.goal)
    card |= {name: report[name] for name in ("recipe", "seed", "history", "hardware")}
    card["training"]["pictures"] = report["pictures"]
    apart = read(given.kept_apart)
    logits, labels = all_logits(model, apart), numbered(apart, card["wordnet_ids"])
    own = labels >= 0
    card["kept_apart"] = measure(logits[torch.from_numpy(own)], labels[own])
    card["unsure"] |= told(card["unsure"], logits.numpy(), labels)
    card["notes"] = given.note
    card = save(model, card, given.out, "photos")
    write_whole(given.out / "photos.md", model_card(card).encode())
    print(json.dumps({name: card[name] for name in ("validation", "kept_apart", "unsure")}, indent=1))


if __name__ == "__main__":
    main()
