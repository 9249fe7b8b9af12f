"""The lenses that come with the bundled models: fitted on scenes of a seed of their own, packed in float16, with checksums.

``python -m classspace_widgets.training.lenses`` fits and writes them all.
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

KINDS = ("jacobian", "translator")
SEED = 11
"""Of the scenes: neither that of training (1) nor those that docs/study.md measures on."""
SCENES = {"jacobian": 128, "translator": 512}
"""A ridge map has as many unknowns as a Jacobian, but one equation a token: it needs more pictures."""


def write_lenses(variant: str, folder: Path = WEIGHTS) -> None:
    """Fit the lenses of a bundled model, and write them with their checksums in the model's card."""
    space = ClassSpace.bundled(variant, device="cpu")
    card = read_card(variant, folder)
    card["lenses"] = {}
    for kind in KINDS:
        lens = fit_lens(space, kind, ScenesDataset(SCENES[kind], seed=SEED))
        data = packed_lens(lens)
        write_whole(folder / f"{variant}.{kind}.safetensors", data)
        card["lenses"][kind] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "scenes": SCENES[kind],
            "seed": SEED,
        }
    write_whole(folder / f"{variant}.json", (json.dumps(card, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> None:
    """Fit the lenses of the bundled models that are named, or of all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("variants", nargs="*", default=list(variants()), help="bundled models (all)")
    for variant in parser.parse_args(arguments).variants:
        write_lenses(variant)


if __name__ == "__main__":
    main()
