"""Only tests that drive a browser are tried again, and each of them is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ONCE = """
from pathlib import Path

def test_{name}():
    seen = Path(__file__).with_suffix(".seen")
    again = seen.exists()
    seen.touch()
    assert again, "a lost click"
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_test_that_is_run_again_is_named_and_no_other_is_run_again(tmp_path: Path, workers: list[str]):
    """Another test with the word in its name, and a folder of that name elsewhere, fail as they should."""
    for name in ("conftest.py", "browser/conftest.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(TESTS / name, tmp_path / name)
    (tmp_path / "other" / "browser").mkdir(parents=True)
    places = {"clicks": "browser/test_page.py", "browser_state": "test_browser.py", "far": "other/browser/test_far.py"}
    for name, place in places.items():
        (tmp_path / place).write_text(ONCE.format(name=name))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers = browser: drives a real browser\naddopts = --strict-markers\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        *workers,
        str(tmp_path),
    ]
    out = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    assert "1 passed" in out, out
    assert "2 failed" in out, out
    named = [line for line in out.splitlines() if line.startswith("RERUN ")]
    assert named == ["RERUN browser/test_page.py::test_clicks (AssertionError: a lost click)"], out


def test_the_tests_of_the_browser_folder_alone_are_marked():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    places = [str(TESTS / "browser" / "test_page.py"), str(TESTS / "memories" / "test_atlas.py")]
    out = subprocess.run(
        [*command, "-m", "browser", *places], capture_output=True, text=True, check=False, cwd=TESTS.parent
    )
    found = [line for line in out.stdout.splitlines() if line.startswith("tests/")]
    assert found, out.stdout
    assert all(line.startswith("tests/browser/") for line in found)
