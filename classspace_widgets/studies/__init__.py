"""The paper's measurements over data sets: streaming, resumable, on one machine or many."""

from classspace_widgets.studies.composition import ResidualComposition, SimilarityChange
from classspace_widgets.studies.decisions import Decisions
from classspace_widgets.studies.execution import Execution
from classspace_widgets.studies.explanation import ExplanationStudy
from classspace_widgets.studies.findings import findings
from classspace_widgets.studies.heads import head_table
from classspace_widgets.studies.identifiability import Accuracy, Identifiability, IdentifiabilityChange, PlaceDifference
from classspace_widgets.studies.memory import ClassValueAgreement, KeyValueAgreement, MemoryCompositionality
from classspace_widgets.studies.outliers import Outliers
from classspace_widgets.studies.perturbation import AttentionPerturbation, TokenRemoval
from classspace_widgets.studies.protocol import Study
from classspace_widgets.studies.results import StudyResults
from classspace_widgets.studies.run import run_study
from classspace_widgets.studies.standard import standard_studies
from classspace_widgets.studies.statistics import bootstrap_ci
from classspace_widgets.studies.trust import LensReport, lens_report

__all__ = [
    "Accuracy",
    "AttentionPerturbation",
    "ClassValueAgreement",
    "Decisions",
    "Execution",
    "ExplanationStudy",
    "Identifiability",
    "IdentifiabilityChange",
    "KeyValueAgreement",
    "LensReport",
    "MemoryCompositionality",
    "Outliers",
    "PlaceDifference",
    "ResidualComposition",
    "SimilarityChange",
    "Study",
    "StudyResults",
    "TokenRemoval",
    "bootstrap_ci",
    "findings",
    "head_table",
    "lens_report",
    "run_study",
    "standard_studies",
]
