"""The examples in docstrings, in the guide and in the README run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from classspace_widgets import ClassSpace

MODULES = [
    "images",
    "lens",
    "lookup",
    "metrics.contributions",
    "metrics.identifiability",
    "ranking",
    "space",
    "streaming",
    "trace",
]
ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^(?:<!-- needs (?P<needs>[^\n]*) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"classspace_widgets.{name}")
    names = {"torch": torch, "np": np, "ClassSpace": ClassSpace}
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, extraglobs=names, optionflags=options)
    assert result.failed == 0
    assert result.attempted > 0


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
    page = (tmp_path / "fish.html").read_text(encoding="utf-8")
    assert page.count('class="csw-mount"') == 1
    assert names["trace"].logits(classes="fish").shape == (1, 145, 1)


def test_the_readme_and_the_first_page_show_the_same_lines():
    assert blocks("README.md")[0] == blocks("docs/start.md")[0]


def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, left_out = blocks("docs/own.md")
    assert len(code) >= 6
    assert left_out == 2
    names: dict[str, object] = {}
    for n, block in enumerate(code):
        exec(compile(block, f"own.md, block {n + 1}", "exec"), names)
    assert max(names["space"].identities.values()) < 1e-3
    assert (tmp_path / "owl.csnap").exists()
    assert (tmp_path / "page.html").exists()
    assert set(names["results"]["accuracy"].table["weights"]) == {"trained", "random"}


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
