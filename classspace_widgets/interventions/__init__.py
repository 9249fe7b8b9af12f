"""What if: interventions on tokens, attention, heads and the class embedding, applied for one pass."""

from classspace_widgets.interventions.base import Intervention, from_spec, to_code, to_spec
from classspace_widgets.interventions.engine import intervene
from classspace_widgets.interventions.plan import Plan
from classspace_widgets.interventions.run import run_with, trace_with
from classspace_widgets.interventions.spec import (
    Ablate,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
)
from classspace_widgets.interventions.tokens import Sizes, grid_mask

__all__ = [
    "Ablate",
    "Intervention",
    "KnockOutAttention",
    "MaskTokens",
    "PatchResidual",
    "Plan",
    "RemoveTokens",
    "ReplaceClassEmbedding",
    "Sizes",
    "from_spec",
    "grid_mask",
    "intervene",
    "run_with",
    "to_code",
    "to_spec",
    "trace_with",
]
