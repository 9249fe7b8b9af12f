"""The pages for backbones without a classifier, and for users of other tools, run from top to bottom.

The first one runs on stand-ins, and on a real backbone with real photographs where there are some: a folder ``realvit`` in
``../shared``, or where ``CLASSSPACE_REALVIT`` says, with ``train``, ``val`` and ``weights.safetensors`` (or
``CLASSSPACE_REALVIT_WEIGHTS``).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
from core.test_docs import blocks
from safetensors.torch import save_file

from classspace_widgets import ClassSpace
from classspace_widgets.scenes import gallery, make_scene
from classspace_widgets.studies import run_study

ROOT = Path(__file__).resolve().parents[2]


def run(page, names):
    code, left_out = blocks(page)
    assert left_out == 0
    for number, block in enumerate(code):
        exec(compile(block, f"{page}, block {number + 1}", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:this jacobian lens was fitted on 2")
def test_the_page_runs_on_a_fresh_backbone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 2), ("val", 1)):
        for name in ("boat", "fish"):
            (tmp_path / f"photos/{split}/{name}").mkdir(parents=True)
            for seed in range(count):
                make_scene(seed, label=name).picture.save(tmp_path / f"photos/{split}/{name}/{seed}.png")
    model = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=False, img_size=224)
    save_file(model.state_dict(), "weights.safetensors")
    photos = sorted((tmp_path / "photos/train").rglob("*.png"))
    names = run("docs/no_classifier.md", {"photo": photos[0], "pictures": photos[:2]})
    assert "2 classes fitted on 4 pictures" in names["space"].fitted.in_words()
    assert names["again"].class_names == ("boat", "fish")
    assert (tmp_path / "page.html").exists()


def real() -> tuple[Path, Path]:
    """The folder of photographs and the file of weights, or a skip."""
    folder = Path(os.environ.get("CLASSSPACE_REALVIT", ROOT.parent / "shared/realvit"))
    weights = Path(os.environ.get("CLASSSPACE_REALVIT_WEIGHTS", folder / "weights.safetensors"))
    missing = [str(path) for path in (folder / "train", folder / "val", weights) if not path.exists()]
    if missing:
        pytest.skip(f"no real backbone with photographs here: {', '.join(missing)} missing (CLASSSPACE_REALVIT)")
    return folder, weights


@pytest.mark.slow
def test_the_page_runs_on_a_real_backbone_and_is_as_good_as_it_says(tmp_path, monkeypatch):
    folder, weights = real()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(folder)
    (tmp_path / "weights.safetensors").symlink_to(weights)
    photos = sorted((folder / "train").rglob("*.jpg"))
    names = run("docs/no_classifier.md", {"photo": photos[0], "pictures": photos[::40]})
    assert answer(names["results"]["accuracy"].table) >= 0.88
    eleven = ClassSpace.fit(
        "vit_small_patch14_dinov2.lvd142m", "photos/train", image_size=224, checkpoint="weights.safetensors", depth=11
    )
    assert answer(run_study(eleven, "photos/val", ["accuracy"], progress=False)["accuracy"].table) >= 0.91


def answer(table) -> float:
    """Accuracy of the model's own answer in a table of the study."""
    return float(table.set_index("measure")["value"]["top-1"])


def test_every_tools_users_find_what_they_look_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("docs/coming_from.md", {"picture": gallery()[4].picture})
    trace = names["trace"]
    assert torch.allclose(names["to_patches"] + trace.attention_weights[6][0, :, 0, 0], torch.ones(trace.heads))
    assert names["patch_map"].shape == trace.grid
    assert names["found"].maps.shape[:2] == (1, 1)
    assert names["best"].shape == (1, 1, 3)
    assert names["without"].effect.shape == (1, trace.n_blocks, trace.heads)
    for file in ("boat.png", "methods.pdf", "figure.png"):
        assert (tmp_path / file).stat().st_size > 1000
