"""The lenses that come with the bundled models: whole files, of the right model, and worth shipping."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.data import token_mask
from classspace_widgets.lens import LensMismatchError
from classspace_widgets.models.bundled import WEIGHTS, load_bundled_lens, variants
from classspace_widgets.scenes import ScenesDataset

KINDS = ("jacobian", "translator")


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("kind", KINDS)
def test_they_belong_to_their_models(variant, kind):
    space = ClassSpace.bundled(variant, device="cpu")
    lens = space.bundled_lens(kind)
    assert lens.kind == kind
    assert lens.complete
    trace = space.trace(ScenesDataset(1, seed=6)[0][0])
    assert trace.logits("residual", 3, lens=lens).isfinite().all()
    other = next(name for name in variants() if name != variant)
    with pytest.raises(LensMismatchError):
        ClassSpace.bundled(other, device="cpu").trace(ScenesDataset(1, seed=6)[0][0]).logits(lens=lens)


def test_a_damaged_file_and_an_unknown_lens_are_refused(tmp_path):
    for file in WEIGHTS.glob("contrast.*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(ValueError, match=r"no .jacobi. lens comes with 'contrast'.*jacobian"):
        load_bundled_lens("contrast", "jacobi", folder=tmp_path)
    file = tmp_path / "contrast.jacobian.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="damaged: expected sha256"):
        load_bundled_lens("contrast", "jacobian", folder=tmp_path)
    assert json.loads((WEIGHTS / "contrast.json").read_text())["lenses"]["jacobian"]["pictures"] == 128
    with pytest.raises(ValueError, match=r"no fitted lens comes with .*space\.fit_lens\('jacobian', pictures\)"):
        tiny_vit().bundled_lens("jacobian")
    assert tiny_vit().trace(images_for(tiny_vit())).n_images == 2


def precision(scores, masks):
    """Mean average precision of token scores ``[B, P]`` against masks ``[B, P]``, one picture at a time."""
    found = [average_precision_score(m == 1, s) for s, m in zip(scores, masks, strict=True) if (m == 1).any()]
    return float(np.mean(found))


def test_the_contrast_model_is_seen_through_the_jacobian_lens_where_the_logit_lens_is_blind():
    """Average precision of the label's score against the object's mask; held-out scenes, image tokens."""
    space = ClassSpace.bundled("contrast", device="cpu")
    lens = space.bundled_lens("jacobian")
    scenes = [ScenesDataset(80, seed=9)[i] for i in range(80)]
    trace = space.trace([scene[0] for scene in scenes])
    masks = np.stack([token_mask(mask == 1, trace.grid) for _, _, mask in scenes])
    labels = [label for _, label, _ in scenes]
    for block in range(1, 7):
        logit = trace.logits("residual", block, labels=labels)[:, 1:, 0]
        carried = trace.logits("residual", block, labels=labels, lens=lens)[:, 1:, 0]
        ranks = trace.ranks("residual", block, labels=labels, lens=lens)[:, 1:, 0]
        assert precision(logit.numpy(), masks) < 0.5, block
        assert precision(carried.numpy(), masks) > 0.55, block
        inside, outside = (ranks[torch.as_tensor(masks == value)].float().mean() for value in (1, 0))
        assert inside < outside - 2, block
