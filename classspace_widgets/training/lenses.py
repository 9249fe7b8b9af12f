"""The lenses that come with the bundled models: fitted on pictures of their model's kind, packed in float16, with checksums.

Each file also holds how far the lens can be trusted at each block, measured on other pictures.
``python -m classspace_widgets.training.lenses`` fits, measures and writes those of the models of scenes; with ``--measure`` the maps
stay as they are. ``python -m classspace_widgets.training.lenses photos --photographs FOLDER`` does so for the model of photographs, with
the folder that it was trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classspace_widgets.data.coco import OutlinedPictures
from classspace_widgets.files import write_whole
from classspace_widgets.fitting import fit_lens
from classspace_widgets.lens.file import packed_lens
from classspace_widgets.models.bundled import WEIGHTS, load_bundled, load_bundled_lens, read_card, variants
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.space.space import ClassSpace
from classspace_widgets.studies import lens_report
from classspace_widgets.training.photos.data import data_set

KINDS = ("jacobian", "translator")
SEED = 11
"""Of the scenes: neither that of training (1) nor those that docs/study.md measures on."""
HELD_OUT = {"pictures": 96, "seed": 12}
"""Scenes on which the lenses are measured: none of those that they were fitted on."""
SCENES = {"jacobian": 128, "translator": 512}
"""A ridge map has as many unknowns as a Jacobian, but one equation a token: it needs more pictures."""
EACH = {"jacobian": 4, "translator": 20, "held out": 5}
"""Photographs of each class: those of training that lenses are fitted on, and held-back ones on which they are measured."""


@dataclass(frozen=True)
class Sources:
    """What the lenses of a model are fitted on, by kind, what they are measured on, and what its card says of both."""

    fit: dict[str, ScenesDataset] | dict[str, OutlinedPictures]
    held_out: ScenesDataset | OutlinedPictures
    about: dict[str, Any]


def scenes() -> Sources:
    """Drawn scenes of seeds of their own."""
    return Sources(
        {kind: ScenesDataset(count, seed=SEED) for kind, count in SCENES.items()},
        ScenesDataset(HELD_OUT["pictures"], seed=HELD_OUT["seed"]),
        {"seed": SEED, "held_out": HELD_OUT},
    )


def photographs(folder: Path, card: dict[str, Any]) -> Sources:
    """Photographs that the model was trained on, and of those held back; the insides of boxes stand for masks."""
    classes = dict(zip(card["wordnet_ids"], card["classes"], strict=True))
    held_back = card["recipe"]["held_back"]
    sets = {
        kind: data_set(folder, classes, held_back=held_back, validation=kind == "held out", each=each)
        for kind, each in EACH.items()
    }
    held_out = sets.pop("held out")
    return Sources(sets, held_out, {"held_out": {"pictures": len(held_out)}})


def write_lenses(variant: str, sources: Sources, folder: Path = WEIGHTS, *, refit: bool = True) -> None:
    """Fit the lenses of a bundled model, measure them, and write them with their checksums in the model's card."""
    space = ClassSpace(load_bundled(variant, folder=folder), device="cpu", name=f"bundled/{variant}")
    card = read_card(variant, folder)
    lenses = [
        fit_lens(space, kind, sources.fit[kind]) if refit else load_bundled_lens(variant, kind, folder=folder)
        for kind in KINDS
    ]
    report = lens_report(space, lenses, sources.held_out)
    card["lenses"] = {}
    for lens in lenses:
        data = packed_lens(report.attached(lens))
        write_whole(folder / f"{variant}.{lens.kind}.safetensors", data)
        card["lenses"][lens.kind] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "pictures": lens.n_pictures,
            **sources.about,
        }
    write_whole(folder / f"{variant}.json", (json.dumps(card, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> None:
    """Fit and measure the lenses of the bundled models that are named, or of all that were trained on scenes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("variants", nargs="*", default=list(variants(trained_on="scenes")), help="bundled models")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="what the model of photographs learned from")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of weights and cards")
    parser.add_argument("--measure", action="store_true", help="keep the maps, and measure them again")
    options = parser.parse_args(arguments)
    for variant in options.variants:
        card = read_card(variant, options.weights)
        if card["trained_on"] == "scenes":
            sources = scenes()
        elif options.photographs is None:
            parser.error(f"{variant} was trained on photographs: --photographs must name their folder")
        else:
            sources = photographs(options.photographs, card)
        write_lenses(variant, sources, options.weights, refit=not options.measure)


if __name__ == "__main__":
    main()
