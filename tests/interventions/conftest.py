from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, tiny_vit

from classspace_widgets import ClassSpace

# The models are tiny: threads cost more than they bring.
torch.set_num_threads(1)


@pytest.fixture(scope="session", params=list(FAMILIES))
def family(request) -> ClassSpace:
    return FAMILIES[request.param]()


@pytest.fixture(scope="session")
def space() -> ClassSpace:
    return tiny_vit()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
