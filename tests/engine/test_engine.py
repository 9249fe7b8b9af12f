"""The engine of a page, under node: the file that pages carry, on the bundled models, against torch and Pillow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fixtures import MODELS, fixtures
from make_fixtures import FOLDER
from PIL import Image

from classspace_widgets import ClassSpace
from classspace_widgets.capture.model import model_container
from classspace_widgets.causal import sweep_heads
from classspace_widgets.export.front_end import STATIC
from classspace_widgets.export.packed import packed
from classspace_widgets.images import sample_photo
from classspace_widgets.interventions import PatchResidual, from_spec, trace_with
from classspace_widgets.interventions.base import to_code
from classspace_widgets.models.bundled import variants
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.snapshot import Snapshot
from classspace_widgets.snapshot.container import byte_planes, unpack

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (STATIC / "engine.js").is_file(), reason="needs node and the built front end"
)
CLOSE = 1e-3
"""How far class logits may lie from torch's, and how far apart two must lie to have an order."""


def raw_picture(picture: Image.Image) -> bytes:
    """A picture as the stand-in for a browser's decoder reads it."""
    size = np.array(picture.size, np.uint32).tobytes()
    return size + picture.convert("RGBA").tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_shared_fixtures_are_what_torch_computes(name: str):
    for file, data in fixtures(name).items():
        meta, arrays = unpack((FOLDER / "engine" / f"{file}.bin").read_bytes())
        now, wanted = unpack(data)
        assert meta == now, file
        for key, array in wanted.items():
            tolerance = 1 if array.dtype.kind == "u" else 1e-3 if array.dtype == np.float16 else 1e-5
            np.testing.assert_allclose(arrays[key].astype(float), array.astype(float), atol=tolerance, err_msg=key)


class InNode:
    """The engine with a model and the trace of a first picture."""

    def __init__(self, folder: Path, space: ClassSpace, trace: Any) -> None:
        self.folder, self.space = folder, space
        self.base = trace.snapshot().meta
        (folder / "model").write_text(packed(byte_planes(model_container(space))))
        (folder / "start").write_bytes(trace.increments[0][0].float().numpy().tobytes())

    def ask(self, *requests: tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], bytes]) -> list[dict[str, Any]]:
        """Answers to requests ``(kind, params, picture)``, in order; what was sent beside them lies in the folder."""
        listed = []
        for number, (kind, params, *picture) in enumerate(requests):
            job: dict[str, Any] = {"kind": kind, "params": params}
            if picture:
                job["picture"] = f"picture {number}"
                (self.folder / job["picture"]).write_bytes(picture[0])
            listed.append(job)
        jobs = {"block": "model", "base": self.base, "start": "start", "requests": listed}
        (self.folder / "jobs.json").write_text(json.dumps(jobs))
        done = subprocess.run(
            ["node", str(Path(__file__).parent / "worker.mjs"), str(STATIC / "engine.js"), str(self.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: list[dict[str, Any]] = json.loads((self.folder / "answers.json").read_text())
        return answers

    def snapshot(self, number: int, name: str = "_snapshot") -> Snapshot:
        """What a request set."""
        return Snapshot.unpack((self.folder / f"{number}.{name}.bin").read_bytes())


@pytest.fixture
def default(tmp_path: Path) -> InNode:
    space = ClassSpace.bundled()
    return InNode(tmp_path, space, space.trace(ScenesDataset(1, seed=4)[0][0], attention=True, heads=True))


def same_ranks(own: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether classes stand in one order, up to those that lie closer than `CLOSE`."""
    order = np.argsort(-wanted, kind="stable")
    return bool((np.diff(own[order]) < CLOSE).all())


SCENES = int(os.environ.get("CLASSSPACE_ENGINE_SCENES", "60"))
"""That the default model is compared on; it takes the better part of a second each."""


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "count"), [("default", SCENES), ("gap", 20), ("contrast", 20)])
def test_logits_of_drawn_scenes_are_torchs(tmp_path: Path, variant: str, count: int):
    space = ClassSpace.bundled(variant)
    pictures = [ScenesDataset(count, seed=11)[i][0] for i in range(count)]
    node = InNode(tmp_path, space, space.trace(pictures[0], attention=True, heads=True))
    answers = node.ask(*(("image", {"name": "scene"}, raw_picture(p)) for p in pictures))
    wanted = torch.cat([space.trace(pictures[i : i + 20]).output for i in range(0, count, 20)]).numpy()
    assert all(answer["ok"] for answer in answers)
    own = np.stack([node.snapshot(number).arrays["output_logits"] for number in range(count)])
    assert np.abs(own - wanted).max() < CLOSE
    assert all(same_ranks(a, b) for a, b in zip(own, wanted, strict=True))


def parts_of_photographs(count: int) -> list[Image.Image]:
    """Parts of the photographs that come with the package, of many sizes and shapes."""
    rng = np.random.default_rng(2)
    photographs = [Image.open(sample_photo(name)).convert("RGB") for name in ("espresso", "cat")]
    made = []
    for number in range(count):
        whole = photographs[number % len(photographs)]
        width, height = (int(rng.integers(60, side + 1)) for side in whole.size)
        width = max(width, height // 2 + 1)  # see `test_tall_pictures_are_prepared_as_by_pillow_but_for_rounding`
        width = min(width, whole.width)
        left, top = int(rng.integers(whole.width - width + 1)), int(rng.integers(whole.height - height + 1))
        made.append(whole.crop((left, top, left + width, top + height)))
    return made


@pytest.mark.skipif("photos" not in variants(), reason="needs the bundled photo model")
def test_the_photo_model_reads_photographs_as_torch_does(tmp_path: Path):
    space = ClassSpace.bundled("photos")
    pictures = parts_of_photographs(12)
    node = InNode(tmp_path, space, space.trace(pictures[0], attention=True, heads=True))
    remove = {"type": "RemoveTokens", "tokens": list(range(20, 40))}
    answers = node.ask(
        *(("image", {"name": "part"}, raw_picture(p)) for p in pictures),
        ("whatif", {"spec": [remove], "labels": ["a"], "label": "what"}),
    )
    assert all(answer["ok"] for answer in answers), answers
    traces = [space.trace(picture) for picture in pictures]
    height, width = space.preprocessing.size
    for number, trace in enumerate(traces):
        own = node.snapshot(number)
        # The stand-in for a canvas writes its pixels as they are.
        seen = own.arrays["image"].reshape(height, width, 4)[..., :3].astype(int)
        assert np.abs(seen - trace.pictures[0]).max() <= 1
        logits, wanted = own.arrays["output_logits"], trace.output[0].numpy()
        assert np.abs(logits - wanted).max() < CLOSE
        assert same_ranks(logits, wanted)
    changed = trace_with(space, traces[-1], from_spec([remove])).output[0].numpy()
    assert np.abs(node.snapshot(len(pictures), "_intervened").arrays["output_logits"] - changed).max() < CLOSE


SPECS: list[list[dict[str, Any]]] = [
    [{"type": "RemoveTokens", "tokens": list(range(30, 60))}],
    [{"type": "MaskTokens", "tokens": [0, 40], "mode": "mean"}],
    [{"type": "KnockOutAttention", "kind": "no_cls", "blocks": [5, 6, 7]}],
    [{"type": "KnockOutAttention", "kind": "edges", "sources": [66, 67], "blocks": [4], "renormalise": True}],
    [{"type": "KnockOutAttention", "kind": "self_only"}],
    [
        {"type": "Ablate", "sublayer": "head", "blocks": [8], "heads": [2]},
        {"type": "Ablate", "sublayer": "mlp", "blocks": [7]},
    ],
]


def test_interventions_on_the_bundled_model_are_torchs(default: InNode):
    answers = default.ask(*(("whatif", {"spec": spec, "labels": ["a"] * len(spec), "label": "what"}) for spec in SPECS))
    source = default.space.trace(ScenesDataset(1, seed=4)[0][0], attention=True, heads=True)
    for number, (spec, answer) in enumerate(zip(SPECS, answers, strict=True)):
        assert answer["ok"], answer
        own = default.snapshot(number, "_intervened")
        trace = trace_with(default.space, source, from_spec(spec), attention=True, heads=True)
        wanted = trace.snapshot()
        for name in ("output_logits", "sigma", "raw"):
            np.testing.assert_allclose(own.arrays[name], wanted.arrays[name], atol=CLOSE)
        # Of the output token's row; the others are asked for.
        assert own.meta["attention"]["rows"] == [0]
        assert np.abs(own.arrays["attention"][:, :, 0].astype(int) - wanted.arrays["attention"][:, :, 0]).max() <= 1
        assert own.meta["tokens"] == wanted.meta["tokens"]
        assert own.meta["intervention"] == {
            "label": "what",
            "labels": ["a"] * len(spec),
            "spec": spec,
            "code": to_code(from_spec(spec)),
        }


def test_a_sweep_over_heads_is_torchs(default: InNode):
    (answer,) = default.ask(("sweep", {"kind": "heads", "class": 3}))
    trace = default.space.trace(ScenesDataset(1, seed=4)[0][0])
    wanted = sweep_heads(default.space, trace, 3, progress=False)
    _, arrays = unpack((default.folder / "0.0.bin").read_bytes())
    np.testing.assert_allclose(arrays["grid"], wanted.effect[0].numpy(), atol=CLOSE)
    assert answer["result"]["baseline"] == pytest.approx(float(wanted.baseline[0]), abs=CLOSE)
    assert answer["result"]["rows"] == list(wanted.blocks)


def test_what_it_cannot_answer_is_refused_in_words(default: InNode):
    requests: list[Any] = [
        ("whatif", {"spec": [{"type": "RemoveTokens", "tokens": [0]}]}),
        ("whatif", {"spec": [{"type": "ReplaceClassEmbedding", "classes": [1], "by": [2]}]}),
        ("whatif", {"spec": [{"type": "Ablate", "sublayer": "mlp", "blocks": [9]}]}),
        ("whatif", {"spec": [{"type": "PatchResidual", "target_block": 2, "tokens": [5], "source": "other"}]}),
        ("whatif", {"spec": [PatchResidual(2, [5], source_token=7).to_dict() | {"source_block": 3}]}),
        ("image", {"name": "broken.png"}, b"no"),
        ("intervened classes", {"classes": [1]}),
        ("classes", {"classes": [99]}),
        ("sweep", {"kind": "heads", "class": 1, "mode": "resample"}),
        *((kind, {}) for kind in ("importance", "flow", "neighbours", "word")),
    ]
    words = [answer["error"]["message"] for answer in default.ask(*requests)]
    for text, part in zip(
        words,
        (
            "prefix tokens",
            "does not know",
            "1..8",
            "second picture is not in this page",
            "later block",
            "cannot be read",
            "apply the intervention",
            "0..23",
            "resample",
            *(f"does not compute {kind}" for kind in ("importance", "flow", "neighbours", "word")),
        ),
        strict=True,
    ):
        assert part in text


SIZES = [(96, 96), (200, 120), (97, 180), (50, 40), (640, 480), (1000, 33), (96, 130)]


@pytest.mark.parametrize("filters", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_pictures_are_prepared_as_by_timm(tmp_path: Path, filters: str, crop: float):
    space = ClassSpace.bundled("contrast")
    config = {**space.model.pretrained_cfg, "interpolation": filters, "crop_pct": crop}
    space.model.pretrained_cfg = space.model.default_cfg = config
    space = ClassSpace(space.model, device="cpu")
    assert space.preprocessing.interpolation == filters
    rng = np.random.default_rng(0)
    pictures = []
    for width, height in SIZES:
        rough = Image.fromarray(rng.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), np.uint8))
        pictures.append(rough.resize((width, height), Image.Resampling.NEAREST))
    traces = [space.trace(picture) for picture in pictures]
    node = InNode(tmp_path, space, traces[0])
    answers = node.ask(*(("image", {"name": "a"}, raw_picture(picture)) for picture in pictures))
    for number, (answer, trace) in enumerate(zip(answers, traces, strict=True)):
        assert answer["ok"], answer
        # The stand-in for a canvas writes its pixels as they are.
        seen = node.snapshot(number).arrays["image"].reshape(96, 96, 4)[..., :3]
        assert np.array_equal(seen, trace.pictures[0])


def test_tall_pictures_are_prepared_as_by_pillow_but_for_rounding(tmp_path: Path):
    """Newer versions of Pillow resize them down first, then across, and round in between."""
    space = ClassSpace.bundled("contrast")
    scene = ScenesDataset(1, seed=4, size=384)[0][0].crop((90, 0, 250, 384))
    trace = space.trace(scene)
    node = InNode(tmp_path, space, trace)
    (answer,) = node.ask(("image", {"name": "a"}, raw_picture(scene)))
    assert answer["ok"], answer
    seen = node.snapshot(0).arrays["image"].reshape(96, 96, 4)[..., :3].astype(int)
    apart = np.abs(seen - trace.pictures[0])
    assert (apart <= 1).mean() > 0.99
    assert apart.max() <= 4
