"""What stands around a vision transformer is left out where the answer is the same, and named where it is not."""

from __future__ import annotations

import pytest
import torch
from core.families import build
from torch import nn

from classspace_widgets import ClassSpace
from classspace_widgets.models import UnsupportedModelError
from convert.originals import CLASSES, CLASSIFIERS, LABELS, perturbed, pixels, transformers

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


class Normalize(nn.Module):
    """As torchvision's and kornia's are: numbers of every channel, in whatever shape."""

    def __init__(self, shape=(1, 3, 1, 1), mean=MEAN, std=STD):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(shape))
        self.register_buffer("std", torch.tensor(std).view(shape))

    def forward(self, x):
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)


class Module(nn.Module):
    """As a LightningModule: a net, a loss, metrics, and a forward that hands on."""

    def __init__(self, net):
        super().__init__()
        self.net, self.loss = net, nn.CrossEntropyLoss()
        self.metric = nn.Linear(2, 2)

    def forward(self, x):
        return self.net(x)


class NormalizingModule(Module):
    def __init__(self, net):
        super().__init__(net)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


class Dictionary(Module):
    def forward(self, x):
        return {"logits": self.net(x), "loss": None}


def same(space, wrapper, batch):
    with torch.no_grad():
        return torch.allclose(space.trace(batch).output, wrapper(batch), atol=1e-5)


@pytest.mark.parametrize("kind", [Module, Dictionary])
def test_a_module_around_a_model(kind):
    inner = build("ViT")
    wrapper = kind(inner).train()
    space = ClassSpace(wrapper)
    assert space.model is inner
    assert space.origin == f"model.net of a {kind.__name__}"
    assert space.origin in space._repr_html_()
    assert wrapper.training
    assert inner.blocks[0].training
    assert not ClassSpace(inner).origin


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3,), (3, 1, 1)])
def test_a_normalisation_in_front_becomes_the_preprocessings(shape):
    inner = build("ViT")
    space = ClassSpace(nn.Sequential(Normalize(shape), inner))
    assert space.model is inner
    assert space.preprocessing.mean == pytest.approx(MEAN)
    assert space.preprocessing.std == pytest.approx(STD)
    assert space.origin == "model[1] of a Sequential, with the mean and standard deviation of model[0]"
    assert not space.preprocessing.assumed or set(space.preprocessing.assumed) == {"crop"}
    # A picture of 0..1 through the space's preprocessing is what the wrapper makes of it.
    batch = torch.rand(2, 3, 32, 32)
    normal = (batch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(space.trace(normal).output, nn.Sequential(Normalize(shape), inner)(batch), atol=1e-5)


def test_torchvisions_normalize():
    transforms = pytest.importorskip("torchvision.transforms")
    space = ClassSpace(nn.Sequential(transforms.Normalize(MEAN, STD), build("ViT")))
    assert (space.preprocessing.mean, space.preprocessing.std) == (MEAN, STD)


def test_a_module_that_normalises_itself():
    space = ClassSpace(NormalizingModule(build("ViT")))
    assert space.preprocessing.mean == pytest.approx(MEAN)
    assert space.origin.endswith("with the mean and standard deviation of model")


def test_what_the_caller_says_of_the_normalisation_holds():
    space = ClassSpace(nn.Sequential(Normalize(), build("ViT")), mean=0.25, std=0.5)
    assert (space.preprocessing.mean, space.preprocessing.std) == ((0.25,) * 3, (0.5,) * 3)


class Hidden(nn.Module):
    """A normalisation whose numbers cannot be read."""

    def forward(self, x):
        return (x - 0.3) / 0.2


@pytest.mark.parametrize(
    ("wrap", "path", "why"),
    [
        (lambda m: nn.Sequential(Hidden(), m), "model[1]", "changes the answer"),
        (lambda m: nn.Sequential(Normalize(), Hidden(), m), "model[2]", "changes the answer"),
        (lambda m: nn.Sequential(m, nn.Softmax(dim=1)), "model[0]", "changes the answer"),
        (lambda m: nn.ModuleDict({"net": m}), "model.net", "cannot be run on a picture"),
        (lambda m: nn.Sequential(m, nn.Linear(12, 2)), "model[0]", "changes the answer"),
    ],
)
def test_what_changes_the_answer_is_refused_with_the_part_to_pass(wrap, path, why):
    inner = build("ViT")
    wrapper = wrap(inner)
    with pytest.raises(UnsupportedModelError, match=why) as caught:
        ClassSpace(wrapper)
    assert f"pass {path} (" in str(caught.value)
    assert eval(path, {"model": wrapper}) is inner


def test_of_two_models_none_is_chosen():
    wrapper = Module(build("ViT"))
    wrapper.teacher = build("ViT")
    with pytest.raises(UnsupportedModelError, match=r"it holds 2: pass model\.net or model\.teacher"):
        ClassSpace(wrapper)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["parallel", "compiled"]
)
def test_wrappers_inside_wrappers(wrap):
    inner = build("ViT")
    space = ClassSpace(Module(wrap(inner)))
    assert space.model is inner


def test_a_model_of_another_library_inside_a_wrapper():
    original = CLASSIFIERS["torchvision"]()
    wrapper = nn.Sequential(Normalize(), original)
    space = ClassSpace(wrapper)
    assert space.origin == (
        "model[1] of a Sequential, a VisionTransformer of torchvision, converted into timm's VisionTransformer, with the "
        "mean and standard deviation of model[0]"
    )
    with torch.no_grad():
        assert torch.allclose(space.trace(pixels()).output, original(pixels()), atol=1e-5)
    inner = transformers("ViTForImageClassification", "ViTConfig", hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                         intermediate_size=64, image_size=32, patch_size=8, **LABELS)  # fmt: skip
    assert ClassSpace(Module(inner)).class_names == CLASSES


def test_timms_wrapper_in_transformers():
    library = pytest.importorskip("transformers")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
    config = library.TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=sizes, **LABELS)
    wrapper = perturbed(library.TimmWrapperForImageClassification(config))
    space = ClassSpace(wrapper)
    assert space.model is wrapper.timm_model
    assert space.class_names == CLASSES
    with torch.no_grad():
        assert torch.allclose(space.trace(pixels()).output, wrapper(pixels()).logits, atol=1e-5)


def test_lightnings_module():
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.vit = build("ViT")

        def forward(self, x):
            return self.vit(x)

    module = Classifier()
    assert ClassSpace(module).model is module.vit
