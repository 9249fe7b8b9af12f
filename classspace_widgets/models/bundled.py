"""The bundled models: plain timm vision transformers, trained on drawn scenes or on photographs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets.files import write_whole
from classspace_widgets.lens import FittedLens
from classspace_widgets.lookup import close_matches
from classspace_widgets.scenes.shapes import CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "weights"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONFIGURED = ("classes", "mean", "std", "wordnet_ids")
"""What of a card goes into the model's configuration."""
TRAINED_ON = ("scenes", "photographs")
"""What bundled models were trained on, as their cards have it: the drawn world of `scenes`, or photographs."""


def build(
    arguments: dict[str, Any],
    *,
    classes: Sequence[str] = CLASSES,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    wordnet_ids: Sequence[str] = (),
) -> VisionTransformer:
    """A timm vision transformer with random weights, and what preprocessing and data sets need to know."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(num_classes=len(classes), **arguments)
    size = arguments["img_size"]
    config = {
        "architecture": "vision_transformer_bundled",
        "label_names": list(classes),
        "wordnet_ids": list(wordnet_ids),
        "num_classes": len(classes),
        "input_size": (3, size, size),
        "fixed_input_size": True,
        "mean": tuple(mean),
        "std": tuple(std),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    model.pretrained_cfg = model.default_cfg = config
    return model


def variants(folder: Path = WEIGHTS, *, trained_on: str | None = None) -> tuple[str, ...]:
    """Names of the bundled models that are there.

    Parameters
    ----------
    folder : Path
        Where weights and cards lie; those of the package by default.
    trained_on : str, optional
        Only those that were trained on ``"scenes"`` (drawn pictures, with exact masks), or on ``"photographs"``.

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        For another ``trained_on``.

    Examples
    --------
    >>> variants()
    ('contrast', 'default', 'gap', 'photos')
    >>> variants(trained_on="photographs")
    ('photos',)
    """
    if trained_on not in (None, *TRAINED_ON):
        raise ValueError(f"trained_on must be one of {TRAINED_ON}, or None for all, got {trained_on!r}")
    there = sorted(card for card in folder.glob("*.json") if card.with_suffix(".safetensors").exists())
    return tuple(card.stem for card in there if trained_on in (None, json.loads(card.read_text())["trained_on"]))


def read_card(variant: str = "default", folder: Path = WEIGHTS) -> dict[str, Any]:
    """What is known about a bundled model: timm arguments, recipe, accuracy, checksum.

    Parameters
    ----------
    variant : str
        One of `variants`.
    folder : Path
        Where weights and cards lie; those of the package by default.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        For an unknown variant.

    Examples
    --------
    >>> read_card()["timm"]["depth"]
    8
    """
    known = variants(folder)
    if variant not in known:
        there = f"there are {', '.join(known)}" if known else "no weights are installed; reinstall classspace-widgets"
        raise ValueError(f"no bundled model is called {variant!r}{close_matches(str(variant), known)}; {there}")
    card: dict[str, Any] = json.loads((folder / f"{variant}.json").read_text())
    return card


def card_of(name: str, class_names: Sequence[str]) -> dict[str, Any] | None:
    """The card of the bundled model that a space's name means; None for other models, and for other classes on this one.

    Examples
    --------
    >>> card_of("bundled/gap", CLASSES)["variant"]
    'gap'
    """
    source, _, variant = name.partition("/")
    if source != "bundled" or variant not in variants():
        return None
    card = read_card(variant)
    return card if tuple(card.get("classes", CLASSES)) == tuple(class_names) else None


def described(card: dict[str, Any]) -> str:
    """In words what a bundled model knows, and what to take for other pictures."""
    if card["trained_on"] == "scenes":
        return (
            f"The bundled model {card['variant']} was trained on drawn scenes of {len(CLASSES)} classes and knows nothing else; for "
            'photographs take ClassSpace.bundled("photos"), or a timm model: ClassSpace.from_timm("vit_base_patch16_224").'
        )
    size = card["timm"]["img_size"]
    return (
        f"The bundled photo model is small: it knows {len(card['classes'])} everyday classes, sees {size} x {size} pixels, and "
        f"named {card['kept_apart']['top1']:.0%} of {card['kept_apart']['pictures']:,} photographs rightly that it had never seen. "
        'For another: ClassSpace.from_timm("vit_base_patch16_224").trace(picture).'
    )


def load_bundled(variant: str = "default", *, folder: Path = WEIGHTS) -> VisionTransformer:
    """A bundled model, in evaluation mode and float32 on the CPU.

    Parameters
    ----------
    variant : str
        Trained on drawn scenes: ``"default"`` ([CLS], token labelling), ``"gap"`` (its twin with global average pooling) or
        ``"contrast"`` ([CLS], one label per picture). Trained on photographs: ``"photos"`` ([CLS], one label per picture).
    folder : Path
        Where weights and cards lie; those of the package by default.

    Returns
    -------
    timm.models.vision_transformer.VisionTransformer
        With `pretrained_cfg` set, so that timm's `resolve_data_config` gives its preprocessing.

    Raises
    ------
    ValueError
        For an unknown variant, or a weight file whose checksum is not the card's.

    Examples
    --------
    >>> model = load_bundled()
    >>> model.training, model.num_classes
    (False, 24)
    """
    from safetensors.torch import load

    from classspace_widgets.models.uninitialised import without_random_weights

    card = read_card(variant, folder)
    data = _checked(folder / f"{variant}.safetensors", card["sha256"])
    with without_random_weights():
        model = build(card["timm"], **{part: card[part] for part in CONFIGURED if part in card})
    model.load_state_dict({name: tensor.float() for name, tensor in load(data).items()})
    return model.eval()


def load_bundled_lens(variant: str, kind: str, *, folder: Path = WEIGHTS) -> FittedLens:
    """A fitted lens that comes with a bundled model.

    Parameters
    ----------
    variant : str
        One of `variants`.
    kind : str
        ``"jacobian"`` or ``"translator"``.
    folder : Path
        The folder of weights and cards; the package's by default.

    Returns
    -------
    FittedLens

    Raises
    ------
    ValueError
        For an unknown variant or kind, or a file whose checksum is not the card's.

    Examples
    --------
    >>> load_bundled_lens("contrast", "jacobian").n_pictures
    128
    """
    known = read_card(variant, folder).get("lenses", {})
    if kind not in known:
        raise ValueError(
            f"no {kind!r} lens comes with {variant!r}{close_matches(kind, known)}; there are {', '.join(known)}"
        )
    place = folder / f"{variant}.{kind}.safetensors"
    _checked(place, known[kind]["sha256"])
    return FittedLens.load(place)


def _checked(place: Path, expected: str) -> bytes:
    """The bytes of a file whose checksum is the expected one."""
    data = place.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ValueError(
            f"{place} is damaged: expected sha256 {expected[:16]}..., got {found[:16]}... ({len(data)} bytes); "
            "reinstall it with: pip install --force-reinstall --no-deps classspace-widgets"
        )
    return data


def save(model: VisionTransformer, card: dict[str, Any], folder: Path, variant: str) -> dict[str, Any]:
    """Write float16 weights and their card, which is returned as it was written."""
    import torch
    from safetensors.torch import save as pack

    folder.mkdir(parents=True, exist_ok=True)
    data = pack({name: tensor.detach().to(torch.float16).contiguous() for name, tensor in model.state_dict().items()})
    card = {**card, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    write_whole(folder / f"{variant}.safetensors", data)
    write_whole(folder / f"{variant}.json", (json.dumps(card, indent=1) + "\n").encode())
    return card
