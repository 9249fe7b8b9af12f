"""Interventions on tokens, attention, heads and the class embedding, applied to single passes."""

from classspace_widgets.interventions.base import from_spec, to_spec
from classspace_widgets.interventions.engine import intervene as intervene
from classspace_widgets.interventions.run import run_with, trace_with
from classspace_widgets.interventions.spec import (
    Ablate,
    AddVector,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
)

__all__ = [
    "Ablate",
    "AddVector",
    "KnockOutAttention",
    "MaskTokens",
    "PatchResidual",
    "RemoveTokens",
    "ReplaceClassEmbedding",
    "from_spec",
    "run_with",
    "to_spec",
    "trace_with",
]
