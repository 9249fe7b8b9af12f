"""Nothing is made on the wrong device: passes and readings of a model whose tensors only pretend to be on CUDA."""

from __future__ import annotations

import pytest
import torch
from core.families import build
from torch._subclasses.fake_tensor import FakeTensorMode

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.interventions import Ablate, RemoveTokens, ReplaceClassEmbedding, intervene
from classspace_widgets.space.streaming import Reader, read_pass
from classspace_widgets.studies.hidden import read_hidden

CUDA = "cuda:0"


@pytest.fixture(params=["ViT", "SigLIP, GAP", "BEiT", "RoPE", "DeiT, distilled"])
def space(request):
    model = build(request.param)
    with FakeTensorMode():
        try:
            torch.empty(2, 2, device=CUDA)[:, 0] + 1  # torch 2.4 asks a driver to index
        except (RuntimeError, AssertionError) as error:
            pytest.skip(f"this torch cannot pretend to have CUDA: {error}")
        for module in model.modules():
            for name, tensor in list(module._parameters.items()):
                if tensor is not None:
                    fake = torch.empty(tuple(tensor.shape), device=CUDA)
                    module._parameters[name] = torch.nn.Parameter(fake)
            for name, tensor in list(module._buffers.items()):
                if tensor is not None:
                    module._buffers[name] = torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device=CUDA)
        yield ClassSpace(model, check=False)


def test_everything_stays_on_the_device(space):
    pixels = torch.empty(2, 3, *space.preprocessing.size, device=CUDA)
    labels = torch.zeros(2, dtype=torch.long, device=CUDA)
    trace = space.trace_pixels(pixels, attention=True, heads=True, keys=True)
    found = [
        trace.logits("mid", 1, classes=[1, 2], tokens=[0, 2]),
        trace.ranks("residual", None, [1]),
        *trace.top_k(3),
        trace.readout(),
        *(m.contributions(trace, [1, 2], reading).values for reading in ("direct", "step", "paper")),
        *m.output_contributions(trace, [1]),
        *m.direct_by_head(trace, 1, [1]),
        m.direct_by_source(trace, 1, [1], [0, 2]),
        m.class_identifiability(trace, [1, 2]),
        m.class_similarity_change(trace, [1, 2]),
        m.residual_composition(trace),
        read_hidden(trace, labels, mid=True).label_rank,
    ]
    for precision in ("float32", "bfloat16", "float16"):
        read = read_pass(space, pixels, Reader(space, labels[:, None], 5, precision), precision)
        found += [read.logits, read.ranks, read.top_classes]
    assert {str(tensor.device) for tensor in found} == {CUDA}


@pytest.mark.parametrize(
    "change", [RemoveTokens(tokens=[3]), Ablate("mlp", mode="mean"), ReplaceClassEmbedding(classes=[0], by=[1])]
)
def test_interventions_stay_on_the_device(space, change):
    if isinstance(change, ReplaceClassEmbedding) and space.adapter.pooling == "distilled":
        pytest.skip("two classifiers")
    pixels = torch.empty(2, 3, *space.preprocessing.size, device=CUDA)
    with intervene(space, [change]):
        assert str(space.trace_pixels(pixels).output.device) == CUDA
