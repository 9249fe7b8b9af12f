"""Where the evidence is: token importance, its baselines, and how well each finds what matters."""

from classspace_widgets.explain.importance import importance
from classspace_widgets.explain.masks import mask_scores
from classspace_widgets.explain.perturbation import PerturbationCurves, paper_area, perturbation, random_scores
from classspace_widgets.explain.result import TokenImportance

__all__ = [
    "PerturbationCurves",
    "TokenImportance",
    "importance",
    "mask_scores",
    "paper_area",
    "perturbation",
    "random_scores",
]
