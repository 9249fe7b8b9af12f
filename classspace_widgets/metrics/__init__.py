"""The paper's measurements of a trace: identifiability, change rate, residual composition, contributions.

Symbols as in the paper: ``x_l`` the residual stream after block l, ``a_l`` and ``m_l`` what its attention and MLP add,
``E`` the class embedding.  B images, T tokens, L blocks, K classes, N = 2L + 1 increments, H heads.
"""

from classspace_widgets.metrics.contributions import (
    contributions,
    direct_by_head,
    direct_by_source,
    output_by_head,
    output_contributions,
)
from classspace_widgets.metrics.decision import Decision as Decision
from classspace_widgets.metrics.decision import decision
from classspace_widgets.metrics.flow import Flow as Flow
from classspace_widgets.metrics.flow import flow
from classspace_widgets.metrics.identifiability import chance_identifiability as chance_identifiability
from classspace_widgets.metrics.identifiability import (
    class_identifiability,
    class_similarity_change,
    residual_composition,
)
from classspace_widgets.metrics.identifiability import identifiability as identifiability
from classspace_widgets.metrics.norms import TokenNorms as TokenNorms
from classspace_widgets.metrics.norms import token_norms

__all__ = [
    "class_identifiability",
    "class_similarity_change",
    "contributions",
    "decision",
    "direct_by_head",
    "direct_by_source",
    "flow",
    "output_by_head",
    "output_contributions",
    "residual_composition",
    "token_norms",
]
