"""docs/photos.md: one command makes it whole, from class folders with boxes; here of a small model and pictures of noise."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from tiny_models import perturb

from classspace_widgets import ClassSpace
from classspace_widgets.data import box_folder
from classspace_widgets.studies import StudyResults

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def page_module():
    sys.path.insert(0, str(DOCS))
    try:
        found = importlib.util.spec_from_file_location("photo_page", DOCS / "photos.py")
        made = importlib.util.module_from_spec(found)
        found.loader.exec_module(made)
    finally:
        sys.path.remove(str(DOCS))
    return made


@pytest.fixture
def data(tmp_path) -> Path:
    """Three classes of eight pictures, the object in the left half of each."""
    rng, rows = np.random.default_rng(0), ["file,left,top,right,bottom"]
    for label, name in enumerate(("n01", "n02", "n03")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 120, (32, 32, 3))
            pixels[:, :16, label] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"data/{name}/{number}.png")
            rows.append(f"{name}/{number}.png,0,0,15,31")
    (tmp_path / "data/boxes.csv").write_text("\n".join(rows))
    return tmp_path / "data"


@pytest.mark.slow
def test_one_command_makes_the_page(page_module, data, tmp_path, monkeypatch):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "depth": 5, "num_classes": 0}
    backbone = perturb(timm.create_model("vit_tiny_patch16_224", **sizes))
    pictures = box_folder(data, classes=["n01", "n02", "n03"])
    space = ClassSpace.fit(backbone, pictures, mean=0.5, std=0.5, crop=1.0, progress=False, workers=0)
    monkeypatch.setattr(ClassSpace, "wordnet_ids", property(lambda _: ("n01", "n02", "n03")))
    monkeypatch.setattr(ClassSpace, "bundled", lambda *_, **__: space)
    monkeypatch.setattr(page_module, "MEASURED", {"findings": 3, "lenses": 2, "importance": 2})
    monkeypatch.setattr(page_module, "FITTED", {"jacobian": 2, "translator": 4, "probes": 4})
    monkeypatch.setattr(page_module, "TWINS", {"findings": 2, "lenses": 2})
    own = page_module.Runs.lens
    lenses = {}

    def lens(runs, kind):
        for_twins = own(runs, kind)

        def fitted(asked):
            if asked is not runs.space:
                return for_twins(asked)
            return lenses.setdefault(kind, runs.space.fit_lens(kind, runs.pictures(last=4), progress=False))

        return fitted

    monkeypatch.setattr(page_module.Runs, "lens", lens)
    page = tmp_path / "photos.md"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that pictures are few
        page_module.write(data, tmp_path / "work", page)
    text = page.read_text()
    for heading in (
        "# The paper on photographs", "## What holds, and what does not", "## Identifiability after every block",
        "## Object and context under each lens", "## What attention and MLP add", "## When it is decided",
        "## Maps of importance, tested", "## Linear probes and the class embedding", "## Your own photographs",
    ):  # fmt: skip
        assert f"{heading}\n" in text
    assert "each of the 3 classes (9), with 2 random twins" in text
    assert " nan" not in text
    found = StudyResults.load(tmp_path / "work/findings.json.gz")
    top1 = found["accuracy"].where(weights="trained", measure="top-1")["value"].iloc[0]
    assert f"Top-1 {top1:.3f} [" in text
    # Whatever is in the work folder is not measured again.
    monkeypatch.setattr(StudyResults, "save", lambda *_: pytest.fail("measured again"))
    page.unlink()
    page_module.write(data, tmp_path / "work", page)
    assert page.read_text() == text
