"""The examples in docstrings, in the guide and in the README run."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import json
import pkgutil
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

import classspace_widgets
from classspace_widgets import ClassSpace, Explorer, Snapshot, export_html
from classspace_widgets.data import ArrayDataset
from classspace_widgets.export import Payload
from classspace_widgets.interventions import RemoveTokens, trace_with
from classspace_widgets.metrics import direct_by_head
from classspace_widgets.studies import run_study
from classspace_widgets.tours import read_tour
from classspace_widgets.tours.vocabulary import FACTS, TARGETS
from core.families import build, pixels

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(classspace_widgets.__path__, "classspace_widgets.")
    if ">>> " in Path(module.module_finder.find_spec(module.name).origin).read_text(encoding="utf-8")  # type: ignore
)
MISSING = [name for name in ("open_clip", "transformers", "torchvision") if importlib.util.find_spec(name) is None]
ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^(?:<!-- needs (?P<needs>[^\n]*) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    names = {"torch": torch, "np": np, "ClassSpace": ClassSpace}
    found = [test for test in doctest.DocTestFinder().find(module, extraglobs=names) if test.examples]
    assert found
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in found:
        # Models of other libraries can be shown only where these are installed.
        if not any(f"import {name}" in line or f"from {name}" in line for name in MISSING for line in sources(test)):
            runner.run(test)
    assert runner.failures == 0


def sources(test: doctest.DocTest) -> list[str]:
    """The code lines of an example."""
    return [example.source for example in test.examples]


def blocks(page: str) -> tuple[list[str], int]:
    """Code to run, and how many blocks need what a test has not."""
    found = list(BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")))
    return [m["code"] for m in found if not m["needs"]], sum(bool(m["needs"]) for m in found)


def test_the_readmes_ten_lines_run_and_write_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,), _ = blocks("README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    page = (tmp_path / "espresso.html").read_text(encoding="utf-8")
    assert page.count('class="csw-mount"') == 1
    assert names["trace"].logits(classes="espresso").shape == (1, 65, 1)
    assert names["trace"].predictions(k=1)["class_name"].tolist() == ["espresso"]


def test_the_readme_and_the_first_page_show_the_same_lines():
    assert blocks("README.md")[0] == blocks("docs/start.md")[0]


def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, left_out = blocks("docs/own.md")
    assert len(code) >= 6
    assert left_out == 4
    names: dict[str, object] = {}
    for n, block in enumerate(code):
        exec(compile(block, f"own.md, block {n + 1}", "exec"), names)
    assert max(names["space"].identities.values()) < 1e-3
    assert (tmp_path / "owl.csnap").exists()
    assert (tmp_path / "page.html").exists()
    assert set(names["results"]["accuracy"].table["weights"]) == {"trained", "random"}


def test_the_recipes_run_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, left_out = blocks("docs/recipes.md")
    assert left_out == 1
    names: dict[str, Any] = {}
    for n, block in enumerate(code):
        exec(compile(block, f"recipes.md, block {n + 1}", "exec"), names)
    # What the page says of what comes out.
    assert names["trace"].predictions(k=1)["class_name"].tolist() == ["boat"]
    table = names["by_block"]
    first = {column: int((found > 0.5).idxmax()) for column, found in list(table.items())[1:2]}
    assert first["best class of patches on the boat"] <= int((table["rank at [CLS]"] == 0).idxmax())
    assert table.loc[3, "best class of patches on the boat"] > 0.5 > table.loc[8, "best class of other patches"]
    assert table.loc[3, "rank at [CLS]"] > 0
    heads = names["heads"]
    assert (heads["count"] == 50).all()
    assert heads["value"].is_monotonic_decreasing
    assert heads.loc[0, "low"] > heads.loc[1, "high"]
    assert names["low"].shape == names["high"].shape == (8,)
    by_head = names["shares"][:, 0, :, :, 0].sum(dim=1)
    bias = names["_bias"][:, 0, :, 0]
    attention = names["contributions"](names["many"], "boat").attention[0, ..., 0]
    assert torch.allclose(by_head + bias, attention, atol=1e-4)
    assert names["without"].predictions(k=1)["class_name"].tolist() == ["guitar"]
    division = names["division"]
    assert np.allclose(division.sum(axis=1), division.sum(axis=1).iloc[0], atol=1e-3)
    assert division["object"].iloc[0] > division["prefix"].iloc[0]
    assert division["prefix"].iloc[-1] > 10 * abs(division["object"].iloc[-1])
    assert len(names["joined"]) == 8
    assert set(names["by_picture"]["weights"]) == {"trained", "random"}
    assert names["restored"][0, 0].abs() < 0.1
    assert names["restored"][-1, 0] > 0.5
    with Image.open(tmp_path / "importance.png") as figure:
        assert figure.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert all(finding.holds for finding in names["findings"](names["results"]))
    assert names["curves"].area("negative").mean() > names["control"].area("negative").mean()
    assert names["curves"].area("positive").mean() < names["control"].area("positive").mean()
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        "picture.png", "two_models.html", "importance.png", "importance.svg", "depth.pdf", "classes.png",
        "identifiability.html", "talk.html", "learned.html", "fresh.html",
    }  # fmt: skip


def test_the_lesson_of_the_page_on_tours_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/tours.md").read_text(encoding="utf-8")
    (lesson,) = re.findall(r"^```markdown\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    Path("lesson.md").write_text(lesson, encoding="utf-8")
    names: dict[str, Any] = {}
    for block in blocks("docs/tours.md")[0]:
        exec(compile(block, "tours.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"lesson.md", "fish.html", "lesson.html"}
    # What it says: read at [CLS] the boat is first late, not at once; without it the answer is another.
    trace, boat = names["trace"], names["boat"]
    assert trace.ranks("residual", 0, "boat")[0, 0, 0] > 0
    assert trace.ranks("residual", -1, "boat")[0, 0, 0] == 0
    inside = boat.patch_mask(trace.grid)[0] >= 0.5
    without = trace_with(names["ClassSpace"].bundled(), trace, RemoveTokens(mask=inside))
    assert without.predictions(k=1)["class_name"].tolist() != ["boat"]


def test_the_page_on_tours_lists_all_that_there_is():
    page = (ROOT / "docs/tours.md").read_text(encoding="utf-8")
    for name, known in {**TARGETS, **FACTS}.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |") and known.help in line]
        assert row.endswith("(m) |") == known.model
        assert all(f"`{choice}`" in row for choice in getattr(known, "choices", ()))
    assert sum(bool(fact.state) for fact in FACTS.values()) == 15  # "the first fifteen"
    wrong = page.split("```text\n")[1].split("\n")[0].removeprefix("ValueError: ")
    lesson = re.findall(r"^```markdown\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    with pytest.raises(ValueError, match="there is nothing called 'rnk'") as caught:
        read_tour(lesson.replace("- until: rank", "- until: rnk"))
    assert str(caught.value) == wrong.replace("lesson.md", "tour")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_guide_to_clusters():
    pytest.importorskip("distributed")
    code, left_out = blocks("docs/clusters.md")
    assert left_out == 2
    names: dict[str, object] = {}
    exec(compile("\n".join(code), "clusters.md", "exec"), names)
    alone = names["run_study"](names["space"], names["data"], ["accuracy", "identifiability"], progress=False)
    for name, result in alone.items():
        for key, table in result.tables.items():
            pd.testing.assert_frame_equal(table, names["results"][name].tables[key])
    # What cannot run here is at least made of arguments that exist.
    gpus, slurm = [m["code"] for m in BLOCK.finditer((ROOT / "docs/clusters.md").read_text()) if m["needs"]]
    made: dict[str, object] = {}
    exec(compile(gpus, "clusters.md, GPUs", "exec"), made)
    made["client"].close()
    made["cluster"].close()
    jobqueue = pytest.importorskip("dask_jobqueue")
    call = next(node for node in ast.walk(ast.parse(slurm)) if isinstance(node, ast.Call) and node.keywords)
    cluster = jobqueue.SLURMCluster(**{k.arg: ast.literal_eval(k.value) for k in call.keywords})
    try:
        script = cluster.job_script()
        assert "#SBATCH --gres=gpu:1" in script
        assert "source ~/venv/bin/activate" in script
    finally:
        cluster.close()


@pytest.mark.parametrize("payload", ["all", "classes", "increments"])
@pytest.mark.parametrize("family", ["ViT", "BEiT", "DINOv3", "Parallel attention and MLP"])
def test_the_format_can_be_read_by_what_its_page_says(tmp_path, payload, family):
    """The reader on the page knows nothing of this package."""
    names: dict[str, Any] = {}
    code = BLOCK.findall((ROOT / "docs/snapshot_format.md").read_text(encoding="utf-8"))[-1][1]
    exec(compile(code, "snapshot_format.md", "exec"), names)
    space = ClassSpace(build(family))
    snapshot = space.trace(pixels(space)).snapshot(payload=payload)
    meta, arrays = names["read"](snapshot.save(tmp_path / "one.csnap"))
    assert meta == json.loads(json.dumps(snapshot.meta))
    assert set(arrays) == set(snapshot.arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, snapshot.arrays[name])
    readable = range(space.n_classes) if payload == "increments" else meta["classes"]["kept"]
    for c in readable:
        np.testing.assert_allclose(names["logits"](meta, arrays, c), snapshot.logits(c), rtol=1e-4, atol=1e-4)
    for c in meta["classes"]["kept"][:3]:
        np.testing.assert_array_equal(names["ranks"](meta, arrays, c), snapshot.ranks(c))
    # The page's tables name every array and every key of the meta data.
    page = (ROOT / "docs/snapshot_format.md").read_text(encoding="utf-8")
    assert [
        name
        for name in {*arrays, *meta, *(k for v in meta.values() if isinstance(v, dict) for k in v)}
        if f"`{name}`" not in page
    ] == []


def test_the_messages_that_the_page_explains_are_those_that_come(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    section = page.split("## What a message means")[1].split("\n## ")[0]
    explained = [
        m for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for m in re.findall("`([^`]*)`", row)
    ]
    assert len(explained) == 15

    space = ClassSpace.bundled(device="cpu")
    trace = space.trace(torch.zeros(1, 3, 96, 96))
    path = trace.snapshot(payload="classes", classes=["fish"]).save(tmp_path / "one.csnap")
    hooked = timm.create_model("test_vit")
    hooked.blocks[0].register_forward_hook(lambda _module, _inputs, out: out + 1)
    pictures = ArrayDataset(np.zeros((1, 96, 96, 3), np.uint8), np.array([0]), ("cat",))
    weights = Path(classspace_widgets.__file__).parent / "models" / "weights" / "default.safetensors"
    provoked = []
    for call in (
        lambda: ClassSpace.from_timm("vit_tiny_patch16_224"),
        lambda: ClassSpace.from_timm("swin_tiny_patch4_window7_224", pretrained=False),
        lambda: ClassSpace(hooked),
        lambda: ClassSpace.from_timm("vit_base_patch16_224", pretrained=False, global_pool="avgmax", depth=1),
        lambda: ClassSpace.from_timm("vit_base_patch16_siglip_224", pretrained=False, depth=1),
        lambda: ClassSpace.from_timm("test_vit", pretrained=False, checkpoint=weights),
        lambda: trace.logits(classes="fihs"),
        lambda: run_study(space, pictures, "accuracy", progress=False),
        lambda: space.trace(torch.zeros(1, 3, 50, 50)),
        lambda: direct_by_head(trace, 8, "fish"),
        lambda: setattr(Explorer.from_file(path), "image", "picture.jpg"),
        lambda: Snapshot.load(path).logits(5),
        lambda: Snapshot.load(ROOT / "pyproject.toml"),
        lambda: export_html(trace, tmp_path / "page.html", payload=Payload(max_bytes=1000)),
        *([] if torch.cuda.is_available() else [lambda: ClassSpace.bundled(device="cuda")]),
    ):
        with pytest.raises((ValueError, RuntimeError, KeyError)) as caught:
            call()
        provoked.append(str(caught.value))
    for message, told in zip(explained, provoked, strict=False):
        assert all(part in told for part in message.split("...")), (message, told)
