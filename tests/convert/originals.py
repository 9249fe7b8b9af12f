"""Small models of other libraries with every parameter away from its start, so that a swapped or forgotten one shows."""

from __future__ import annotations

from functools import partial

import pytest
import torch

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
VIT = {**SIZES, "intermediate_size": 64}
DINO = {**SIZES, "mlp_ratio": 2}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CLASSES = ("cat", "dog", "owl")
LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}


def perturbed(model, seed=1):
    """The model in evaluation mode, all of its parameters moved; the same model each time."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            large = parameter.ndim < 2 or any(part in name for part in ("token", "pos", "class", "probe", "latent"))
            parameter += (0.3 if large else 0.1) * noise
    return model.eval()


def transformers(kind, config, **options):
    library = pytest.importorskip("transformers")
    if not hasattr(library, kind):
        pytest.skip(f"this version of transformers has no {kind}")
    torch.manual_seed(0)
    return perturbed(getattr(library, kind)(getattr(library, config)(**options)))


def torchvision(**options):
    vit = pytest.importorskip("torchvision.models.vision_transformer")
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    torch.manual_seed(0)
    return perturbed(vit.VisionTransformer(**{**sizes, "num_classes": 3, **options}))


def open_clip(activation="QuickGELU", **options):
    towers = pytest.importorskip("open_clip.transformer")
    kind = torch.nn.GELU if activation == "GELU" else towers.QuickGELU
    sizes = {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 3,
        "heads": 4,
        "mlp_ratio": 2.0,
        "output_dim": 12,
    }
    torch.manual_seed(0)
    return perturbed(towers.VisionTransformer(**{**sizes, "act_layer": kind, **options}))


def open_clip_pair():
    model = pytest.importorskip("open_clip.model")
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 4, "layers": 1}
    tower = {"layers": 3, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
    torch.manual_seed(0)
    return perturbed(model.CLIP(12, tower, text))


def pair(kind, config, **options):
    return partial(transformers, kind, config, text_config=TEXT, vision_config=VIT, **options)


CLASSIFIERS = {
    "ViT": partial(transformers, "ViTForImageClassification", "ViTConfig", **VIT, **LABELS),
    "ViT, no bias of queries": partial(
        transformers, "ViTForImageClassification", "ViTConfig", **VIT, **LABELS, qkv_bias=False
    ),
    "ViT, tanh GELU": partial(
        transformers, "ViTForImageClassification", "ViTConfig", **VIT, **LABELS, hidden_act="gelu_pytorch_tanh"
    ),
    "DeiT": partial(transformers, "DeiTForImageClassification", "DeiTConfig", **VIT, **LABELS),
    "DeiT, distilled": partial(transformers, "DeiTForImageClassificationWithTeacher", "DeiTConfig", **VIT, **LABELS),
    "BEiT": partial(
        transformers, "BeitForImageClassification", "BeitConfig", **VIT, **LABELS, use_relative_position_bias=True
    ),
    "BEiT, shared positions, [CLS]": partial(
        transformers,
        "BeitForImageClassification",
        "BeitConfig",
        **VIT,
        **LABELS,
        use_shared_relative_position_bias=True,
        use_absolute_position_embeddings=True,
        use_mean_pooling=False,
    ),
    "DINOv2, classifier": partial(transformers, "Dinov2ForImageClassification", "Dinov2Config", **DINO, **LABELS),
    "DINOv2 with registers, classifier": partial(
        transformers,
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        **DINO,
        **LABELS,
        num_register_tokens=3,
    ),
    "CLIP, classifier": pair("CLIPForImageClassification", "CLIPConfig", projection_dim=12, **LABELS),
    "SigLIP, classifier": pair("SiglipForImageClassification", "SiglipConfig", **LABELS),
    "torchvision": torchvision,
}
"""Whole classifiers."""

BACKBONES = {
    "ViT, backbone": partial(transformers, "ViTModel", "ViTConfig", **VIT),
    "DeiT, backbone": partial(transformers, "DeiTModel", "DeiTConfig", **VIT),
    "BEiT, backbone": partial(transformers, "BeitModel", "BeitConfig", **VIT, use_relative_position_bias=True),
    "DINOv2": partial(transformers, "Dinov2Model", "Dinov2Config", **DINO),
    "DINOv2, SwiGLU": partial(transformers, "Dinov2Model", "Dinov2Config", **DINO, use_swiglu_ffn=True),
    "DINOv2, registers": partial(
        transformers, "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **DINO, num_register_tokens=3
    ),
    "DINOv3": partial(transformers, "DINOv3ViTModel", "DINOv3ViTConfig", **VIT, num_register_tokens=3),
    "DINOv3, SwiGLU, no registers": partial(
        transformers,
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        **VIT,
        num_register_tokens=0,
        use_gated_mlp=True,
        hidden_act="silu",
    ),
    "CLIP, vision tower": partial(transformers, "CLIPVisionModel", "CLIPVisionConfig", **VIT),
    "CLIP, tower and projection": partial(
        transformers, "CLIPVisionModelWithProjection", "CLIPVisionConfig", **VIT, projection_dim=12
    ),
    "CLIP": pair("CLIPModel", "CLIPConfig", projection_dim=12),
    "SigLIP, vision tower": partial(transformers, "SiglipVisionModel", "SiglipVisionConfig", **VIT),
    "SigLIP": pair("SiglipModel", "SiglipConfig"),
    "open_clip": partial(open_clip, ls_init_value=0.5),
    "open_clip, mean, norm behind": partial(
        open_clip, "GELU", pool_type="avg", final_ln_after_pool=True, no_ln_pre=True
    ),
    "open_clip, with text": open_clip_pair,
}
"""Models without a classifier."""


def pixels(images=2, size=32, seed=0):
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(seed))


def answer(model, batch):
    """What the original says about pictures: logits, features of its text space, or features of its output token."""
    with torch.no_grad():
        name = type(model).__name__
        if name == "CLIP":
            return model.encode_image(batch)
        if name == "CLIPModel":
            return model.visual_projection(model.vision_model(pixel_values=batch).pooler_output)
        if name == "SiglipModel":
            return model.vision_model(pixel_values=batch).pooler_output
        if not hasattr(model, "config"):
            return model(batch)
        output = model(pixel_values=batch)
        for part in ("logits", "image_embeds"):
            if hasattr(output, part):
                return getattr(output, part)
        if name.startswith(("CLIP", "Siglip", "Beit")):
            return output.pooler_output
        return output.last_hidden_state[:, 0]


def blocks_of(model):
    """The blocks of an original: its longest list of modules that are alike, text left out."""
    tower = getattr(model, "visual", getattr(model, "vision_model", model))
    lists = [part for part in tower.modules() if isinstance(part, (torch.nn.ModuleList, torch.nn.Sequential))]
    alike = [part for part in lists if len({type(one) for one in part}) == 1]
    return max(alike, key=len)


def hidden_states(model, batch):
    """The original's residual stream ``[T, D]`` of one picture: the embedding, and after each block."""
    kept = []

    def stream(value):
        return (value[0] if isinstance(value, tuple) else value)[0]

    blocks = list(blocks_of(model))
    handles = [blocks[0].register_forward_pre_hook(lambda _m, args: kept.append(stream(args)))]
    handles += [block.register_forward_hook(lambda _m, _a, out: kept.append(stream(out))) for block in blocks]
    answer(model, batch)
    for handle in handles:
        handle.remove()
    return kept


def told_states(model, batch):
    """What transformers itself says are the hidden states of one picture; None of other libraries and older versions."""
    if type(model).__module__.partition(".")[0] != "transformers" or older_names():
        return None
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        return [state[0] for state in tower(pixel_values=batch, output_hidden_states=True).hidden_states]


def older_names():
    """Whether the installed transformers is of version 4, with its names of weights."""
    import transformers

    return transformers.__version__.startswith("4.")
