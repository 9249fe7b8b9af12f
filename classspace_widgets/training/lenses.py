"""The lenses that come with the bundled models: fitted on scenes of a seed of their own, packed in float16, with checksums.

Each file also holds how far the lens can be trusted at each block, measured on other scenes.
``python -m classspace_widgets.training.lenses`` fits, measures and writes them all; with ``--measure`` the maps stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from classspace_widgets.files import write_whole
from classspace_widgets.fitting import fit_lens
from classspace_widgets.lens.file import packed_lens
from classspace_widgets.models.bundled import WEIGHTS, read_card, variants
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.space.space import ClassSpace
from classspace_widgets.studies import lens_report

KINDS = ("jacobian", "translator")
SEED = 11
"""Of the scenes: neither that of training (1) nor those that docs/study.md measures on."""
HELD_OUT = {"scenes": 96, "seed": 12}
"""Scenes on which the lenses are measured: none of those that they were fitted on."""
SCENES = {"jacobian": 128, "translator": 512}
"""A ridge map has as many unknowns as a Jacobian, but one equation a token: it needs more pictures."""


def write_lenses(variant: str, folder: Path = WEIGHTS, *, refit: bool = True) -> None:
    """Fit the lenses of a bundled model, measure them, and write them with their checksums in the model's card."""
    space = ClassSpace.bundled(variant, device="cpu")
    card = read_card(variant, folder)
    lenses = [
        fit_lens(space, kind, ScenesDataset(SCENES[kind], seed=SEED)) if refit else space.bundled_lens(kind)
        for kind in KINDS
    ]
    report = lens_report(space, lenses, ScenesDataset(HELD_OUT["scenes"], seed=HELD_OUT["seed"]))
    card["lenses"] = {}
    for lens in lenses:
        data = packed_lens(report.attached(lens))
        write_whole(folder / f"{variant}.{lens.kind}.safetensors", data)
        card["lenses"][lens.kind] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "scenes": lens.n_pictures,
            "seed": SEED,
            "held_out": HELD_OUT,
        }
    write_whole(folder / f"{variant}.json", (json.dumps(card, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> None:
    """Fit and measure the lenses of the bundled models that are named, or of all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("variants", nargs="*", default=list(variants()), help="bundled models (all)")
    parser.add_argument("--measure", action="store_true", help="keep the maps, and measure them again")
    options = parser.parse_args(arguments)
    for variant in options.variants:
        write_lenses(variant, refit=not options.measure)


if __name__ == "__main__":
    main()
