"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

SEED = int(os.environ.get("CLASSSPACE_TEST_SEED", "0"))
"""Of what tests draw without a generator of their own, such as the weights of small models."""

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")


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
