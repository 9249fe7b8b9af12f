"""Pages that carry their model: what travels, and what is refused in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_vit

from classspace_widgets import ClassSpace, export_html
from classspace_widgets.capture.model import model_container
from classspace_widgets.cli import main
from classspace_widgets.export.front_end import STATIC
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.scenes import gallery
from classspace_widgets.snapshot import Snapshot
from classspace_widgets.snapshot.container import unpack

pytestmark = pytest.mark.skipif(not (STATIC / "engine.js").is_file(), reason="needs the built front end")


@pytest.fixture(scope="module")
def space() -> ClassSpace:
    return ClassSpace.bundled()


def test_a_live_page_carries_its_model_once(space: ClassSpace, tmp_path: Path):
    traces = [space.trace(scene.picture, attention=True, heads=True) for scene in gallery()[:2]]
    page = export_html(traces, tmp_path / "live.html", live=True, progress=False)
    plain = export_html(traces, tmp_path / "plain.html", progress=False)
    text = (tmp_path / "live.html").read_text()
    assert len(set(re.findall(r'data-engine="([^"]+)"', text))) == 1
    assert text.count('<script type="application/x-classspace"') == 3  # two pictures and the model
    assert "worker-src blob:;" in text
    assert any("runs in this page" in note for note in page.notes)
    assert page.nbytes > max(4_000_000, plain.nbytes)
    without = (tmp_path / "plain.html").read_text()
    assert "worker-src" not in without
    assert "data-engine" not in without
    assert not any("runs in this page" in note for note in plain.notes)


def test_a_page_of_the_default_model_is_at_most_four_and_a_half_megabytes(space: ClassSpace, tmp_path: Path):
    trace = space.trace(gallery()[0].picture, attention=True, heads=True)
    assert export_html(trace, tmp_path / "live.html", live=True, progress=False).nbytes <= 4_500_000


def test_the_command_makes_a_live_page(tmp_path: Path):
    gallery()[0].picture.save(tmp_path / "fish.png")
    assert (
        main(
            ["export", str(tmp_path / "fish.png"), "--model", "bundled", "--live", "--out", str(tmp_path / "fish.html")]
        )
        == 0
    )
    assert "data-engine" in (tmp_path / "fish.html").read_text()


def test_a_page_needs_the_model_at_hand(space: ClassSpace, tmp_path: Path):
    snapshot = Snapshot.unpack(space.trace(gallery()[0].picture).snapshot().pack())
    with pytest.raises(ValueError, match="live=True needs the model at hand"):
        export_html(snapshot, tmp_path / "no.html", live=True, progress=False)
    assert not (tmp_path / "no.html").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"qk_norm": True}, "a norm acts inside its attention"),
        ({"scale_attn_norm": True}, "a norm acts inside its attention"),
        ({"act_layer": "quick_gelu"}, "not the exact GELU"),
        ({"pre_norm": True}, "a norm acts on its embedding"),
        ({"norm_layer": "rmsnorm"}, "not a LayerNorm"),
        ({"dynamic_img_size": True}, "pictures of several sizes"),
        ({"global_pool": "map"}, "its answer is read by 'pool'"),
    ],
)
def test_what_the_engine_does_not_know_is_refused_with_the_reason(options: dict[str, object], reason: str):
    with pytest.raises(UnsupportedModelError, match=reason):
        model_container(tiny_vit(**options))


def test_weights_that_float16_cannot_hold_are_refused():
    space = tiny_vit()
    with torch.no_grad():
        space.model.blocks[0].mlp.fc1.weight[0, 0] = 1e6
    with pytest.raises(UnsupportedModelError, match="float16 cannot hold"):
        model_container(space)


def test_preparations_that_the_page_does_not_know_are_refused():
    space = tiny_vit()
    space.model.pretrained_cfg = {**space.model.pretrained_cfg, "crop_mode": "border"}
    with pytest.raises(UnsupportedModelError, match="crop_mode='border'"):
        model_container(ClassSpace(space.model, device="cpu"))


def test_the_container_has_every_weight_once(space: ClassSpace):
    meta, arrays = unpack(model_container(space))
    assert meta["kind"] == "model"
    assert {array.dtype.name for array in arrays.values()} == {"float16"}
    assert sum(array.size for array in arrays.values()) == sum(p.numel() for p in space.model.parameters())
