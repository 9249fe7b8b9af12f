"""The table of other libraries' models in docs/supported_models.md is made here, from the models that the tests build."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from classspace_widgets.models.convert import convert
from convert.originals import BACKBONES, CLASSIFIERS

PAGE = Path(__file__).parents[2] / "docs" / "supported_models.md"
TITLE = "## Models of other libraries"
TEXT = f"""{TITLE}

`ClassSpace(model)` takes them as they are, and `ClassSpace.from_pretrained(folder)` those of Hugging Face with the names of their
classes and their preprocessing. Each is converted into the architecture of timm beside it, with the original's own tensors where
nothing has to change, and both are run on one picture of noise: residual streams and answers must agree to 1e-4 of the largest
number in float32, else the model is refused with the first block that differs. What was tried: every row below, built small by
`tests/convert` with random weights of which every one was moved, on transformers 4.57 and 5.24, torchvision 0.29 and open_clip 3.3.
Published weights were not: none of these libraries' hubs can be reached by the tests.

"""
READ = {"token": "first token", "avg": "mean of the patches", "map": "all tokens, pooled by a module"}


def library_of(original):
    return type(original).__module__.partition(".")[0]


def row(family, original):
    converted = convert(original)
    pool = READ[str(converted.global_pool)]
    if hasattr(converted, "head_dist"):
        pool = "first two tokens"
    kind = "classes" if family in CLASSIFIERS else "projection" if converted.num_classes else "none"
    into = type(converted).__name__
    return f"| {library_of(original)} | `{type(original).__name__}` | {family} | timm's `{into}` | {pool} | {kind} |"


def rows():
    yield "| library | class | family | becomes | answer read from | head |"
    yield "|---|---|---|---|---|---|"
    for family, build in {**CLASSIFIERS, **BACKBONES}.items():
        try:
            original = build()
        except pytest.skip.Exception:
            continue
        yield row(family, original)


AFTER = """
Where the head is *none*, fit one with `ClassSpace.fit(model, "photos/")` or give a class embedding `[C, D]`; where it is a
*projection* to what pictures share with text, name your classes in words, `ClassSpace.from_words(model, ["cat", "dog"])`, or give the text
features of your classes `[C, D']`: the refusal has the line to type.

Words need the text tower: `CLIP` and `CustomTextCLIP` of open_clip, `CLIPModel` and `SiglipModel` of transformers.

- **Left out**, since class logits do not depend on them: the pooler (`tanh`) of `ViTModel` and `DeiTModel`, mask tokens, text towers.
- **Of DeiT without its teacher's classifier** the distillation token is called register 1: nothing reads it at the end.
- **DINOv2's classifier** reads [CLS] beside the mean of the patches: one token alone is read as both.
- **Refused, with the reason**: other models of transformers (ResNet, Swin, SigLIP 2 with its pictures of any shape, ...), keys with
  a bias in DINOv3, `representation_size` and several convolutions in torchvision, open_clip's CoCa and its custom blocks, models
  with weights of somebody's own inside.
- **A conversion is of the weights as they are now** and cannot follow further training of the original; see
  [your own model](own.md#a-model-of-another-library).

Files that DINO, MAE and DeiT published are read by `ClassSpace.from_pretrained("file.pth")`, sizes from the weights; there is no
original to compare with, so nothing is checked but names and shapes. Tried with files written like theirs, against a forward pass
written out in the tests.

## Models inside something else

| what stands around it | what is taken |
|---|---|
| `torch.compile`, `DataParallel`, `DistributedDataParallel` | the model inside |
| `Sequential(Normalize, vit)`, a module that normalises itself | the model inside; mean and standard deviation become the preprocessing's |
| a LightningModule, any module that hands its answer on | the model inside, where the answer to a picture of noise is the same |
| timm's wrapper in transformers | timm's model, with the names of the wrapper's configuration |
| what changes the answer (a softmax, a normalisation that cannot be read), or cannot be run | refused, with the part to pass |
| two vision transformers | refused, with both parts |

`space.origin` says what was taken.
"""


def test_the_tables_in_the_docs_are_true():
    """Rewrite them with: CLASSSPACE_WRITE_TABLE=1 python -m pytest tests/convert/test_docs_tables.py."""
    text = TEXT + "\n".join(rows()) + "\n" + AFTER
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(f"\n{TITLE}")
    if os.environ.get("CLASSSPACE_WRITE_TABLE"):
        PAGE.write_text(before.rstrip("\n") + "\n\n" + text, encoding="utf-8")
    # Without some of the libraries there are fewer rows; what there is must read the same.
    assert set(text.splitlines()) <= set(PAGE.read_text(encoding="utf-8").splitlines())
