"""The paper's measurements over any data set: streaming, resumable, distributable."""

from classspace_widgets.studies.checkpoint import CheckpointError
from classspace_widgets.studies.classes import ClassMismatchError, match_classes
from classspace_widgets.studies.composition import ResidualComposition, SimilarityChange
from classspace_widgets.studies.data import (
    ArrayDataset,
    DatasetError,
    PictureFiles,
    RowDataset,
    as_dataset,
    image_folder,
    imagenet_s,
)
from classspace_widgets.studies.explanation import ExplanationStudy
from classspace_widgets.studies.findings import Finding, findings
from classspace_widgets.studies.identifiability import (
    Accuracy,
    Identifiability,
    IdentifiabilityChange,
    PlaceDifference,
)
from classspace_widgets.studies.memory import ClassValueAgreement, KeyValueAgreement, MemoryCompositionality
from classspace_widgets.studies.perturbation import AttentionPerturbation, TokenRemoval
from classspace_widgets.studies.prepare import token_mask
from classspace_widgets.studies.protocol import ShareStudy, Study
from classspace_widgets.studies.readings import Readings
from classspace_widgets.studies.report import write_report
from classspace_widgets.studies.results import StudyResult, StudyResults
from classspace_widgets.studies.run import run_study
from classspace_widgets.studies.standard import all_studies, standard_studies
from classspace_widgets.studies.statistics import bootstrap_ci, permutation_test, wilcoxon_greater
from classspace_widgets.studies.twin import random_twin

__all__ = [
    "Accuracy",
    "ArrayDataset",
    "AttentionPerturbation",
    "CheckpointError",
    "ClassMismatchError",
    "ClassValueAgreement",
    "DatasetError",
    "ExplanationStudy",
    "Finding",
    "Identifiability",
    "IdentifiabilityChange",
    "KeyValueAgreement",
    "MemoryCompositionality",
    "PictureFiles",
    "PlaceDifference",
    "Readings",
    "ResidualComposition",
    "RowDataset",
    "ShareStudy",
    "SimilarityChange",
    "Study",
    "StudyResult",
    "StudyResults",
    "TokenRemoval",
    "all_studies",
    "as_dataset",
    "bootstrap_ci",
    "findings",
    "image_folder",
    "imagenet_s",
    "match_classes",
    "permutation_test",
    "random_twin",
    "run_study",
    "standard_studies",
    "token_mask",
    "wilcoxon_greater",
    "write_report",
]
