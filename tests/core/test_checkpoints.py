"""Checkpoints as training code leaves them: the weights are found, nothing in a file is run, grids are resampled as timm does."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import pathlib

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from classspace_widgets import ClassSpace
from core.families import perturbed

NAME = "vit_base_patch16_224"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def made(seed=0, name=NAME, **options):
    torch.manual_seed(seed)
    return perturbed(timm.create_model(name, **(SMALL | {"num_classes": 5} | options)), seed)


def loaded(path, name=NAME, **options):
    return ClassSpace.from_timm(name, checkpoint=path, device="cpu", **(SMALL | options)).model


def same(model, weights):
    return all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


class Settings(dict):
    """A dict of another kind, as Lightning and OmegaConf save their settings."""


@dataclasses.dataclass
class Run:
    name: str
    when: datetime.datetime


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


def beside():
    """What else is found in checkpoints."""
    return {
        "args": argparse.Namespace(lr=0.1, img_size=None),
        "hyper_parameters": Settings(lr=0.1, layers=[1, 2]),
        "run": Run("first", datetime.datetime(2026, 1, 1)),
        "best": np.float64(0.7),
        "history": np.arange(3.0),
        "folder": pathlib.PurePosixPath("a"),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    }


def prefixed(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


FORMS = {
    "timm train.py": lambda w: {"state_dict": w, **beside()},
    "the weights themselves": lambda w: w,
    "an ordered dict with metadata": lambda w: collections.OrderedDict(w),
    "model_state_dict": lambda w: {"model_state_dict": w, **beside()},
    "Lightning beside a loss": lambda w: {
        "state_dict": {**prefixed("model.", w), "criterion.weight": torch.ones(5), "train_acc.total": torch.tensor(1)},
        **beside(),
    },
    "Lightning, two deep": lambda w: {"state_dict": prefixed("net.vit.", w), "loss": torch.tensor(1.0)},
    "a loss beside plain names": lambda w: {**w, "criterion.weight": torch.ones(5), "loss_fn.weight": torch.ones(5)},
    "AveragedModel": lambda w: {**prefixed("module.", w), "n_averaged": torch.tensor(3)},
    "DataParallel of a compiled model": lambda w: {"model": prefixed("module._orig_mod.", w)},
    "three deep": lambda w: {"callbacks": {"EMA": {"state": w}}},
    "in a dict of another kind": lambda w: Settings(model=Settings(w)),
    "beside an object with slots": lambda w: {"state_dict": w, "settings": Slotted()},
    "twice the same": lambda w: {"state_dict": w, "model": dict(w)},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path, form):
    weights = made().state_dict()
    torch.save(FORMS[form](weights), tmp_path / "c.pth")
    assert same(loaded(tmp_path / "c.pth"), weights)


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("student", "teacher"), ("model", "swa_model")],
)
def test_averaged_weights_come_first(tmp_path, plain, averaged):
    first, second = made(0).state_dict(), made(1).state_dict()
    for order in ((plain, averaged), (averaged, plain)):
        held = {plain: first, averaged: second}
        torch.save({name: prefixed("backbone.", held[name]) for name in order}, tmp_path / "c.pth")
        assert same(loaded(tmp_path / "c.pth"), second)
    torch.save({**prefixed("model.", first), **prefixed("ema_model.", second)}, tmp_path / "c.pth")
    assert same(loaded(tmp_path / "c.pth"), second)


def test_the_set_that_fits_is_taken(tmp_path):
    right, other = made(0).state_dict(), made(1, embed_dim=48).state_dict()
    torch.save({"teacher": other, "student": right}, tmp_path / "c.pth")
    assert same(loaded(tmp_path / "c.pth"), right)


def test_sets_that_cannot_be_told_apart_are_refused(tmp_path):
    torch.save({"best": made(0).state_dict(), "last": made(1).state_dict()}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="several sets of weights that fit, 'best' and 'last'; save the one"):
        loaded(tmp_path / "c.pth")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return eval, (f"open({self.path!r}, 'w')",)


def test_nothing_in_a_file_is_run(tmp_path):
    weights = made().state_dict()
    trace = tmp_path / "ran"
    torch.save({"state_dict": weights, "args": Evil(str(trace)), "more": eval}, tmp_path / "c.pth")
    assert same(loaded(tmp_path / "c.pth"), weights)
    assert not trace.exists()
    torch.save(made(), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match="not unpickled because that runs code"):
        loaded(tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "c.pth").read_bytes()[:-2000])
    with pytest.raises(ValueError, match="it is damaged"):
        loaded(tmp_path / "cut.pth")
    assert argparse.Namespace not in torch.serialization.get_safe_globals(), "what was let in is out again"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2, "no_embed_class": True}, {"img_size": (32, 48)}])
def test_position_embeddings_of_another_grid(tmp_path, suffix, options):
    weights = made(img_size=72, **{k: v for k, v in options.items() if k != "img_size"}).state_dict()
    path = tmp_path / f"c{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save({"model": weights}, path)
    model = loaded(path, **options)
    prefix = 0 if "no_embed_class" in options else 1
    expected = resample_abs_pos_embed(
        weights["pos_embed"], new_size=list(model.patch_embed.grid_size), num_prefix_tokens=prefix
    )
    assert expected.shape == model.pos_embed.shape
    assert torch.equal(model.pos_embed, expected)
    assert same(model, {**weights, "pos_embed": expected})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {**w, "dist_token": torch.zeros(1, 1, 24)}, r"1 unknown \(dist_token\)"),
        (lambda w: {**w, "pre_logits.fc.weight": torch.zeros(24, 24)}, r"1 unknown \(pre_logits"),
        (lambda w: {k: v for k, v in w.items() if k != "norm.bias"}, r"1 missing \(norm\.bias\)"),
        (lambda w: {**w, "patch_embed.proj.weight": torch.zeros(24, 3, 16, 16)}, "1 of another shape"),
        (
            lambda w: {**w, "pos_embed": torch.zeros(1, 82, 24), "cls_token": torch.zeros(1, 1, 12)},
            "2 of another shape",
        ),
        (
            lambda w: (
                prefixed("backbone.", {k: v for k, v in w.items() if "head" not in k})
                | {"fc.weight": torch.ones(5, 24)}
            ),
            r"head\.bias, head\.weight\).*pass num_classes=0, and class_embedding",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    torch.save(change(made().state_dict()), tmp_path / "c.pth")
    with pytest.raises(ValueError, match=f"does not fit VisionTransformer: .*{words}"):
        loaded(tmp_path / "c.pth")


def test_a_backbone_without_its_classifier(tmp_path):
    weights = made().state_dict()
    torch.save(prefixed("backbone.", {k: v for k, v in weights.items() if "head" not in k}), tmp_path / "c.pth")
    space = ClassSpace.from_timm(
        NAME,
        checkpoint=tmp_path / "c.pth",
        num_classes=0,
        class_embedding=weights["head.weight"],
        device="cpu",
        **SMALL,
    )
    assert space.n_classes == 5


def test_files_without_weights(tmp_path):
    for content in ({"epoch": 3}, [torch.zeros(2)], {"a": {"b": {"c": {"d": {"e": {"f": torch.zeros(1)}}}}}}):
        torch.save(content, tmp_path / "c.pth")
        with pytest.raises(ValueError, match="does not hold weights by name"):
            loaded(tmp_path / "c.pth")


def test_weights_that_are_loaded_are_not_drawn_first(tmp_path):
    """Building for a checkpoint leaves the global random state alone, and every weight is the checkpoint's."""
    model = timm.create_model("test_vit", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "c.pth")
    before = torch.get_rng_state()
    loaded = ClassSpace.from_timm("test_vit", checkpoint=tmp_path / "c.pth", device="cpu").model
    ClassSpace.bundled(device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
