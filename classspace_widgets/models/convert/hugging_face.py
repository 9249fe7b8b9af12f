"""What all families of transformers share: names of weights in both generations, configuration, answers and positions."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from classspace_widgets.models.convert.naming import activation, layer_norm, sides, sizes
from classspace_widgets.models.convert.preprocessor import preprocessing_beside
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

NAMES = (
    (r"^(?:vit|deit|beit|dinov2|dinov2_with_registers|dinov3_vit|vision_model)\.", ""),
    (r"^vision_model\.", ""),
    # Before and since version 5.
    (r"^(?:encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"^(blocks\.\d+)\.(?:attention\.attention|attention|self_attn)\.", r"\1.attn."),
    (r"\.attn\.(?:query|q_proj)\.", ".attn.q."),
    (r"\.attn\.(?:key|k_proj)\.", ".attn.k."),
    (r"\.attn\.(?:value|v_proj)\.", ".attn.v."),
    (r"\.attn\.(?:o_proj|out_proj)\.", ".attn.proj."),
    (r"^(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"^embeddings\.(?:patch_embeddings|patch_embedding)\.(?:projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.(?:cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.(?:position_embeddings|position_embedding\.weight)$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (r"^(?:classifier|visual_projection)\.", "head."),
)
"""From the names of transformers, with and without what stands around the encoder, to timm's."""

UNUSED = (r"^pooler\.dense\.", r"^embeddings\.mask_token$", r"^embeddings\.position_ids$")
"""Weights that have no part in class logits, nor in the features of the output token."""


class Config(Protocol):
    """What is read from a configuration of transformers."""

    hidden_size: int
    num_attention_heads: int
    layer_norm_eps: float
    hidden_act: str
    image_size: Any
    patch_size: Any


def kind_of(model: nn.Module) -> str:
    """Name of a model's class in transformers, also where somebody derived one of their own from it."""
    return next(kind.__name__ for kind in type(model).__mro__ if kind.__module__.startswith("transformers.models."))


def is_classifier(model: nn.Module) -> bool:
    """Whether a model of transformers ends in a classifier of pictures, and is not without classes."""
    config: Any = model.config
    return "ForImageClassification" in kind_of(model) and int(config.num_labels) > 0


def common_options(weights: Mapping[str, Tensor], config: Config, name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Options of timm's vision transformers that all families have."""
    return sizes(weights, name) | {
        "img_size": size,
        "num_heads": config.num_attention_heads,
        "norm_layer": layer_norm(config.layer_norm_eps),
        "act_layer": activation(config.hidden_act, name),
    }


def without_activation(options: dict[str, Any], config: Config, name: str, fixed: str) -> dict[str, Any]:
    """Options for an architecture whose MLPs know only one activation, which must be the original's."""
    if config.hidden_act != fixed:
        raise UnsupportedModelError(
            f"{name} cannot be converted: its MLPs use {config.hidden_act!r}, expected {fixed!r}"
        )
    return {key: value for key, value in options.items() if key != "act_layer"}


def size_for(model: nn.Module, config: Config, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width that a model is converted for: those asked for, those of its preprocessing, or those it was built for."""
    if size is not None:
        return size
    found: tuple[int, ...] = tuple(config_of(model).get("input_size", ()))[1:]
    return (found[0], found[1]) if len(found) == 2 else sides(config.image_size)


def positions(embeddings: nn.Module, own: Tensor, config: Config, size: tuple[int, int]) -> Tensor:
    """Position embeddings ``[1, tokens, D]`` for pictures of some size: the original's tensor, or what it resamples itself."""
    own = own if own.ndim == 3 else own.unsqueeze(0)
    if size == sides(config.image_size):
        return own
    rows, columns = (side // patch for side, patch in zip(size, sides(config.patch_size), strict=True))
    before = own.shape[1] - (sides(config.image_size)[0] // sides(config.patch_size)[0]) * (
        sides(config.image_size)[1] // sides(config.patch_size)[1]
    )
    resample: Any = embeddings.interpolate_pos_encoding
    with torch.no_grad():
        resampled: Tensor = resample(own.new_zeros(1, rows * columns + before, own.shape[2]), *size)
    return resampled.detach()


def called(
    model: nn.Module, config: Config, size: tuple[int, int], answer: Callable[[Any], Tensor]
) -> Callable[[Tensor], Tensor]:
    """A function that runs a model on pixels of some size, and takes the answer from what it returns."""
    options: dict[str, Any] = {}
    if size != sides(config.image_size) and _takes_other_sizes(model):
        options["interpolate_pos_encoding"] = True
    return lambda pixels: answer(model(pixel_values=pixels, **options))


def _takes_other_sizes(model: nn.Module) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def layers_of(backbone: Any) -> Any:
    """The blocks of a backbone of transformers, wherever its version keeps them."""
    for path in (("layers",), ("encoder", "layer"), ("encoder", "layers"), ("model", "layer"), ("layer",)):
        found = backbone
        for part in path:
            found = getattr(found, part, None)
        if found is not None:
            return found
    raise UnsupportedModelError(f"{type(backbone).__name__} of this version of transformers keeps its blocks elsewhere")


def logits(output: Any) -> Tensor:
    """Class logits ``[B, C]`` in the output of a model of transformers."""
    found: Tensor = output[0] if isinstance(output, tuple) else output.logits
    return found


def pooled(output: Any) -> Tensor:
    """Pooled features ``[B, D]`` in the output of a model of transformers."""
    found: Tensor = output[1] if isinstance(output, tuple) else output.pooler_output
    return found


def first_token(output: Any) -> Tensor:
    """The first token's features ``[B, D]`` in the output of a model of transformers."""
    found: Tensor = (output[0] if isinstance(output, tuple) else output.last_hidden_state)[:, 0]
    return found


def config_of(model: nn.Module) -> dict[str, Any]:
    """What timm calls ``pretrained_cfg``: names of classes, and the preprocessing of the folder the model came from."""
    config: Any = model.config
    source = str(getattr(config, "_name_or_path", "") or "")
    name = Path(source).name if Path(source).is_dir() else source
    found: dict[str, Any] = {"architecture": name or type(model).__name__}
    labels = class_labels(getattr(config, "id2label", None) or {})
    if labels and is_classifier(model):
        found["label_names"] = labels
    return found | preprocessing_beside(source)


def class_labels(labels: Mapping[Any, str]) -> list[str]:
    """Names of classes in their order; none where they are the placeholders that transformers puts in."""
    numbered = {int(number): str(label) for number, label in labels.items()}
    if sorted(numbered) != list(range(len(numbered))):
        return []
    if all(label == f"LABEL_{number}" for number, label in numbered.items()):
        return []
    return [numbered[number] for number in range(len(numbered))]


def refuse_other_head(model: nn.Module, name: str, inner: str) -> None:
    """Raise `UnsupportedModelError` for a model that neither classifies nor is a backbone."""
    kind = kind_of(model)
    if "ForImageClassification" in kind or kind.endswith(("Model", "ModelWithProjection")):
        return
    remedy = f"pass its backbone: {'model.' + inner}" if hasattr(model, inner) else "pass a model that classifies"
    raise UnsupportedModelError(f"{name} has no classes to read: expected ...ForImageClassification; {remedy}")
