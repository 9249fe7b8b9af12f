"""The logit lens into class embedding space: class logits, exact ranks and top classes of any stream.

``lens(v) = E · LN(v) + b`` (Vilas et al. 2023) is linear up to the scale of the final norm.  With the
norm's weight and mean subtraction folded into the class embedding once,

    lens(v) = raw(v) / sigma(v) + offset,      raw(v) = E_hat v,

raw readings of a stream are the sums of the raw readings of its increments, and ranks need no division by sigma.
"""

from classspace_widgets.lens.fitted import FittedLens, LensMismatchError
from classspace_widgets.lens.lens import ClassLens, class_ranks
from classspace_widgets.lens.pooled import PooledLens
from classspace_widgets.lens.readout import Readout

__all__ = ["ClassLens", "FittedLens", "LensMismatchError", "PooledLens", "Readout", "class_ranks"]
