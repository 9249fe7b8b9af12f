from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, tiny_vit

from classspace_widgets import ClassSpace

# The models are tiny: threads cost more than they bring.
torch.set_num_threads(1)


@pytest.fixture(scope="session", params=[name for name in FAMILIES if name != "scale norm"])
def family(request) -> ClassSpace:
    """Families whose attention can be taken apart."""
    return FAMILIES[request.param]()


@pytest.fixture(scope="session")
def space() -> ClassSpace:
    return tiny_vit()
