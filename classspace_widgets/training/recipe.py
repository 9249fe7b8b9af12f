"""How each bundled model is trained: its data, its targets, its schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _timm(**changes: Any) -> dict[str, Any]:
    defaults = {"img_size": 96, "patch_size": 8, "embed_dim": 128, "depth": 8, "num_heads": 4, "global_pool": "token"}
    return {**defaults, **changes}


@dataclass(frozen=True)
class Recipe:
    """A model and its training: everything but the seed.

    Attributes
    ----------
    timm : dict
        Arguments of `timm.models.vision_transformer.VisionTransformer`.
    token_weight : float
        Weight of the cross-entropy at image tokens covered by an object, to that object's own class.
    context_weight : float
        Weight of the cross-entropy at image tokens without any object, to the uniform distribution over classes.
    rate, matrix_rate : float
        Highest learning rates: of AdamW (embeddings, norms, biases, classifier), and of Muon, which orthogonalises
        the updates of the blocks' matrices.
    keep, keep_until : float
        Share of the image tokens kept at random in a step, for that share of the steps; afterwards all are kept.
    vary : bool
        Whether pictures are rotated, zoomed, shifted, flipped and recoloured every time they are seen, or only flipped,
        which is enough for a run that sees each picture only a few times.
    start_from : str, optional
        Bundled model whose weights the training starts from.
    """

    timm: dict[str, Any] = field(default_factory=_timm)
    scenes: int = 48_000
    p_home: float = 0.5
    distractors: tuple[int, int] = (0, 2)
    steps: int = 8_000
    batch: int = 32
    rate: float = 1e-3
    matrix_rate: float = 5e-3
    warm_up: int = 150
    decay: float = 0.05
    token_weight: float = 2.0
    context_weight: float = 0.3
    keep: float = 0.4
    keep_until: float = 0.88
    vary: bool = False
    start_from: str | None = None


RECIPES = {
    "default": Recipe(),
    "gap": Recipe(
        timm=_timm(global_pool="avg", class_token=False),
        start_from="default",
        steps=800,
        warm_up=50,
        rate=4e-4,
        matrix_rate=2e-3,
    ),
    "contrast": Recipe(
        timm=_timm(embed_dim=96, num_heads=3, patch_size=12),
        p_home=0.8,
        distractors=(0, 0),
        token_weight=0.0,
        context_weight=0.0,
        keep=1.0,
        scenes=12_000,
        steps=2_000,
    ),
}
