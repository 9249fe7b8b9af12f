"""Linear probes (ridge) of every block, stream and token, from one pass over the data."""

from classspace_widgets.probing.fit import collect_sums, fit_probes, probe_accuracy
from classspace_widgets.probing.scores import LensScores, ProbeScores

__all__ = [
    "LensScores",
    "ProbeScores",
    "collect_sums",
    "fit_probes",
    "probe_accuracy",
]
