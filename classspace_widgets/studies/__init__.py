"""The paper's measurements over any data set: streaming, resumable, distributable."""

from classspace_widgets.studies.checkpoint import CheckpointError
from classspace_widgets.studies.composition import ResidualComposition, SimilarityChange
from classspace_widgets.studies.explanation import ExplanationStudy
from classspace_widgets.studies.findings import Finding, findings
from classspace_widgets.studies.heads import head_table
from classspace_widgets.studies.identifiability import (
    Accuracy,
    Identifiability,
    IdentifiabilityChange,
    PlaceDifference,
)
from classspace_widgets.studies.memory import ClassValueAgreement, KeyValueAgreement, MemoryCompositionality
from classspace_widgets.studies.perturbation import AttentionPerturbation, TokenRemoval
from classspace_widgets.studies.protocol import ShareStudy, Study
from classspace_widgets.studies.readings import Readings
from classspace_widgets.studies.results import StudyResult, StudyResults
from classspace_widgets.studies.run import run_study
from classspace_widgets.studies.standard import all_studies, standard_studies
from classspace_widgets.studies.statistics import bootstrap_ci, permutation_test, wilcoxon_greater
from classspace_widgets.studies.twin import random_twin

__all__ = [
    "Accuracy",
    "AttentionPerturbation",
    "CheckpointError",
    "ClassValueAgreement",
    "ExplanationStudy",
    "Finding",
    "Identifiability",
    "IdentifiabilityChange",
    "KeyValueAgreement",
    "MemoryCompositionality",
    "PlaceDifference",
    "Readings",
    "ResidualComposition",
    "ShareStudy",
    "SimilarityChange",
    "Study",
    "StudyResult",
    "StudyResults",
    "TokenRemoval",
    "all_studies",
    "bootstrap_ci",
    "findings",
    "head_table",
    "permutation_test",
    "random_twin",
    "run_study",
    "standard_studies",
    "wilcoxon_greater",
]
