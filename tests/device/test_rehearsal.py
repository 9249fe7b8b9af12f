"""The benchmark of GPUs runs to its end where there is no GPU, and goes on after a step that hangs or dies."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def cuda(monkeypatch):
    """The script, by its path: other packages are called ``cuda``, too."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.util.spec_from_file_location("cuda_benchmark", BENCHMARKS / "cuda.py")
    script = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, found.name, script)
    found.loader.exec_module(script)
    return script


@pytest.mark.slow
def test_every_kind_of_step_runs(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "cuda.py"), "--device", "cpu", "--tiny", "--minutes", "6"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    notes = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    troubles = [note for note in notes if any(word in note for word in ("Error", "stopped", "ended with", "no time"))]
    assert not troubles, troubles
    assert any("passed" in note and "tests marked cuda" in note for note in notes)
    with (tmp_path / "results_cuda.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {
        "Readings", "Questions", "Over data sets", "Through a fitted lens", "One picture", "One picture, compiled",
        "Five best, ratios to a maximum",
    }  # fmt: skip
    assert {row["precision"] for row in rows} == {"float32", "tf32", "bfloat16"}
    for words in ("rank error", "training steps a second", "scenes a second"):
        assert any(words in note for note in notes), words
    table = (tmp_path / "RESULTS_CUDA.md").read_text()
    assert "stream_readings, 4 streams" in table
    assert "met" in table or "missed" in table


WORKER = """
import json, os, sys, time
for name in json.loads(sys.argv[1]):
    print(json.dumps({"begin": name}), flush=True)
    print("something a library prints", flush=True)
    if name == "hangs":
        time.sleep(60)
    if name == "dies":
        os._exit(7)
    print(json.dumps({"note": name + " is done"}), flush=True)
"""


def test_a_step_that_hangs_or_dies_costs_only_itself(cuda, tmp_path, monkeypatch):
    steps = [
        cuda.STEPS[0].__class__("part", name, lambda bench: None, 2)
        for name in ("one", "hangs", "two", "dies", "three")
    ]
    monkeypatch.setattr(cuda, "STEPS", steps)
    monkeypatch.setattr(cuda, "worker", lambda _o, names, _e: [sys.executable, "-c", WORKER, json.dumps(names)])
    sheet = cuda.Sheet(tmp_path, "title")
    cuda.run_steps(sheet, argparse.Namespace(only=None, tiny=False), time.monotonic() + 60)
    assert sheet.notes == [
        "one is done",
        "hangs: stopped, it hung",
        "two is done",
        "dies: the process ended with 7",
        "three is done",
    ]
    assert "hangs: stopped" in (tmp_path / "RESULTS_CUDA.md").read_text()


def test_the_time_that_is_given_is_kept(cuda, tmp_path, monkeypatch):
    steps = [cuda.STEPS[0].__class__("part", name, lambda bench: None, 60) for name in ("hangs", "later")]
    monkeypatch.setattr(cuda, "STEPS", steps)
    monkeypatch.setattr(cuda, "worker", lambda _o, names, _e: [sys.executable, "-c", WORKER, json.dumps(names)])
    sheet = cuda.Sheet(tmp_path, "title")
    start = time.monotonic()
    cuda.run_steps(sheet, argparse.Namespace(only=None, tiny=False), start + 7)
    assert time.monotonic() - start < 15
    assert sheet.notes == ["hangs: stopped, the time was over", "no time was left for: later"]


def test_what_an_error_says_names_no_folder_of_the_machine(cuda):
    place = BENCHMARKS.parent / "classspace_widgets" / "lens.py"
    error = RuntimeError(f'overwritten. Stack trace: File "{place}", line 3\nmore')
    words = sys.modules["cuda_steps"]._words(error)
    assert words == 'RuntimeError: overwritten. Stack trace: File "classspace_widgets/lens.py", line 3'
