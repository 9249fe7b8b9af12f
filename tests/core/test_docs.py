"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
import torch

from classspace_widgets import ClassSpace

MODULES = ["images", "lens", "lookup", "metrics", "ranking", "space", "streaming", "trace"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"classspace_widgets.{name}")
    names = {"torch": torch, "np": np, "ClassSpace": ClassSpace}
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, extraglobs=names, optionflags=options)
    assert result.failed == 0
    assert result.attempted > 0
