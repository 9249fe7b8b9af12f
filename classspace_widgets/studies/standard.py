"""Studies by name."""

from __future__ import annotations

from typing import Any

from classspace_widgets.studies.composition import ResidualComposition, SimilarityChange
from classspace_widgets.studies.decisions import Decisions
from classspace_widgets.studies.identifiability import (
    Accuracy,
    Identifiability,
    IdentifiabilityChange,
    PlaceDifference,
)
from classspace_widgets.studies.outliers import Outliers
from classspace_widgets.studies.protocol import Study

HIDDEN_STATE_STUDIES: tuple[type[Study], ...] = (
    Accuracy,
    Identifiability,
    IdentifiabilityChange,
    PlaceDifference,
    SimilarityChange,
    ResidualComposition,
)


def all_studies() -> dict[str, type[Study]]:
    """Every study class by its name.

    Returns
    -------
    dict of str to type

    Examples
    --------
    >>> sorted(all_studies())[:3]
    ['accuracy', 'attention_perturbation', 'class_value_agreement']
    """
    from classspace_widgets.studies.memory import ClassValueAgreement, KeyValueAgreement, MemoryCompositionality
    from classspace_widgets.studies.perturbation import AttentionPerturbation, TokenRemoval

    memory: tuple[type[Study], ...] = (ClassValueAgreement, KeyValueAgreement, MemoryCompositionality)
    perturbation: tuple[type[Study], ...] = (AttentionPerturbation, TokenRemoval)
    kinds: tuple[type[Study], ...] = (*HIDDEN_STATE_STUDIES, *memory, *perturbation, Decisions, Outliers)
    return {kind.name: kind for kind in kinds}


def standard_studies(*, seed: int = 0, **options: Any) -> list[Study]:
    """The studies that need only one pass: those of hidden states and of memories.

    Parameters
    ----------
    seed : int
        Seed of intervals and permutation tests.
    **options
        As in `Study`: ``replicates``, ``level``, ``per_class``.

    Returns
    -------
    list of Study

    Examples
    --------
    >>> [study.name for study in standard_studies()][:2]
    ['accuracy', 'identifiability']
    """
    kinds = [kind for kind in all_studies().values() if "pixels" not in kind.needs]
    return [kind(seed=seed, **options) for kind in kinds]


def chosen_studies(studies: Any, *, seed: int = 0, lens: bool = False) -> dict[str, Study]:
    """The ``studies`` argument of `run_study` as studies by name; every name once, and with ``lens`` those that take one."""
    if studies is None:
        studies = [study for study in standard_studies(seed=seed) if study.through_lens or not lens]
    elif isinstance(studies, (str, Study)):
        studies = [studies]
    chosen: dict[str, Study] = {}
    for study in studies:
        if isinstance(study, str):
            known = all_studies()
            if study not in known:
                raise ValueError(f"no study named {study!r}; the studies are {', '.join(known)}")
            study = known[study](seed=seed)
        if not isinstance(study, Study):
            raise TypeError(f"expected a Study or its name, got {type(study).__name__}")
        if study.started:
            raise ValueError(f"{study.name} has already been used; pass a new one, or resume from a checkpoint")
        if lens and not study.through_lens:
            able = ", ".join(kind.name for kind in all_studies().values() if kind.through_lens)
            raise ValueError(f"{study.name} cannot be read through a fitted lens; those that can: {able}")
        if study.name in chosen:
            raise ValueError(f"{study.name} was given twice; use another run for other options")
        chosen[study.name] = study
    if not chosen:
        raise ValueError("studies is empty: choose at least one, or None for the standard ones")
    return chosen
