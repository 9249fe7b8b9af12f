"""Files as DINO, MAE and DeiT wrote them, against a forward pass that is written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from classspace_widgets import ClassSpace
from classspace_widgets.models.convert.checkpoints import load_original
from convert.originals import pixels

WIDTH, DEPTH, HEADS, PATCH = 192, 2, 3, 8


def weights(prefix=1, classes=0, seed=0):
    """Weights of the three, which call their parts alike."""
    generator = torch.Generator().manual_seed(seed)

    def new(*shape):
        return torch.randn(shape, generator=generator) * (0.5 if len(shape) < 2 else 1 / math.sqrt(shape[-1]))

    found = {"cls_token": new(1, 1, WIDTH), "pos_embed": new(1, 16 + prefix, WIDTH)}
    shapes = {"patch_embed.proj": (WIDTH, 3, PATCH, PATCH), "norm": (WIDTH,)}
    for block in range(DEPTH):
        shapes |= {
            f"blocks.{block}.{name}": shape
            for name, shape in {
                "norm1": (WIDTH,),
                "attn.qkv": (3 * WIDTH, WIDTH),
                "attn.proj": (WIDTH, WIDTH),
                "norm2": (WIDTH,),
                "mlp.fc1": (2 * WIDTH, WIDTH),
                "mlp.fc2": (WIDTH, 2 * WIDTH),
            }.items()
        }
    if classes:
        shapes["head"] = (classes, WIDTH)
    for name, shape in shapes.items():
        found[f"{name}.weight"] = new(*shape)
        found[f"{name}.bias"] = new(shape[0])
    if prefix == 2:
        found["dist_token"] = new(1, 1, WIDTH)
        found["head_dist.weight"], found["head_dist.bias"] = new(classes, WIDTH), new(classes)
    return found


def streams(w, batch):
    """The residual streams of a plain ViT, norms first."""

    def norm(x, name):
        return functional.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = functional.conv2d(batch, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    tokens = [w[name].expand(len(batch), 1, WIDTH) for name in ("cls_token", "dist_token") if name in w]
    x = torch.cat([*tokens, x], dim=1) + w["pos_embed"]
    kept = [x]
    for block in range(DEPTH):
        qkv = linear(norm(x, f"blocks.{block}.norm1"), f"blocks.{block}.attn.qkv")
        q, k, v = qkv.reshape(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(2, 3) / math.sqrt(WIDTH / HEADS)).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"blocks.{block}.attn.proj")
        hidden = functional.gelu(linear(norm(x, f"blocks.{block}.norm2"), f"blocks.{block}.mlp.fc1"))
        x = x + linear(hidden, f"blocks.{block}.mlp.fc2")
        kept.append(x)
    return kept, norm(x, "norm")


def saved(path, content):
    torch.save(content, path)
    return path


def dino(path):
    teacher, student = weights(seed=1), weights(seed=2)
    projection = {f"head.{name}": torch.randn(3, 3) for name in ("mlp.0.weight", "last_layer.weight_v")}
    content = {
        "student": {f"module.backbone.{key}": value for key, value in student.items()}
        | {f"module.{key}": value for key, value in projection.items()},
        "teacher": {f"backbone.{key}": value for key, value in teacher.items()} | projection,
        "epoch": 100,
        "optimizer": {"state": {}},
    }
    return saved(path, content), teacher


def mae(path):
    encoder = weights()
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 17, 8),
        "decoder_norm.weight": torch.ones(8),
    }
    return saved(path, {"model": encoder | decoder}), encoder


def deit(path):
    found = weights(classes=5)
    return saved(path, {"model": found}), found


def distilled(path):
    found = weights(prefix=2, classes=5)
    return saved(path, {"model": found}), found


@pytest.mark.parametrize("kind", [dino, mae, deit, distilled], ids=lambda kind: kind.__name__)
def test_streams_and_answers_are_those_of_the_weights(kind, tmp_path):
    path, w = kind(tmp_path / "weights.pth")
    expected, features = streams(w, pixels())
    if "head.weight" in w:
        space = ClassSpace.from_pretrained(path, device="cpu")
        logits = features[:, 0] @ w["head.weight"].T + w["head.bias"]
        if "dist_token" in w:
            logits = (logits + features[:, 1] @ w["head_dist.weight"].T + w["head_dist.bias"]) / 2
    else:
        embedding = torch.randn(4, WIDTH)
        space = ClassSpace.from_pretrained(path, device="cpu", class_embedding=embedding)
        logits = features[:, 0] @ embedding.T
    trace = space.trace(pixels())
    for block, stream in enumerate(expected):
        assert torch.allclose(trace.stream("residual", block), stream, atol=1e-3)
    assert torch.allclose(trace.output, logits, atol=1e-3)


def test_heads_that_weights_do_not_tell(tmp_path):
    odd = {"cls_token": torch.randn(1, 1, 48), "pos_embed": torch.randn(1, 17, 48), "patch_embed.proj.weight": torch.randn(48, 3, 8, 8),
           "blocks.0.mlp.fc2.weight": torch.randn(48, 96)}  # fmt: skip
    path = saved(tmp_path / "odd.pth", odd)
    with pytest.raises(ValueError, match=r"has a width of 48, .* pass num_heads="):
        load_original(path)
    with pytest.raises(ValueError, match="must divide the width 48, got 5"):
        load_original(path, num_heads=5)
    with pytest.raises(ValueError, match=r"cannot be converted: its weights are not those .*blocks\.0\.norm1\.weight"):
        load_original(path, num_heads=4)


def test_files_of_something_else(tmp_path):
    path = saved(tmp_path / "net.pth", {"conv1.weight": torch.randn(8, 3, 3, 3), "fc.weight": torch.randn(2, 8)})
    with pytest.raises(ValueError, match="holds no vision transformer"):
        ClassSpace.from_pretrained(path)
    w = weights()
    w["pos_embed"] = torch.randn(1, 13, WIDTH)
    with pytest.raises(ValueError, match="has 13 position embeddings, expected those of a square"):
        ClassSpace.from_pretrained(saved(tmp_path / "oblong.pth", w))
