"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SEED = int(os.environ.get("CLASSSPACE_TEST_SEED", "0"))
"""Of what tests draw without a generator of their own, such as the weights of small models."""

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
# Processes beside each other, and the kernels that they start, share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine an example may take long: that is no failure of what is tested.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name every test that was run again: it passes in the end, and still did not the first time."""
    for report in terminalreporter.stats.get("rerun", []):
        message = getattr(getattr(report.longrepr, "reprcrash", None), "message", "") or str(report.longrepr)
        terminalreporter.write_line(f"RERUN {report.nodeid} ({message.strip().splitlines()[0]})", yellow=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: playwright leaves an event loop running in its thread, and they are the slowest to fail."""
    items.sort(key=lambda item: "browser" in item.path.parts)


def _seed() -> None:
    if "torch" in sys.modules:  # and is not loaded where a test does without
        sys.modules["torch"].manual_seed(SEED)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    _seed()
