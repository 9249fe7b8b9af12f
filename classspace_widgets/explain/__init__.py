"""Token importance, its baselines, and tests of both."""

from classspace_widgets.explain.importance import importance
from classspace_widgets.explain.masks import mask_scores
from classspace_widgets.explain.perturbation import perturbation, random_scores

__all__ = [
    "importance",
    "mask_scores",
    "perturbation",
    "random_scores",
]
