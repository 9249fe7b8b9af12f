"""The logit lens into class embedding space: class logits, exact ranks and top classes of any stream.

``lens(v) = E · LN(v) + b`` (Vilas et al. 2023) is linear up to the scale of the final norm.  With the
norm's weight and mean subtraction folded into the class embedding once,

    lens(v) = raw(v) / sigma(v) + offset,      raw(v) = E_hat v,

raw readings of a stream are the sums of the raw readings of its increments, and ranks need no division by sigma.
"""

from classspace_widgets.lens.fitted import FittedLens
from classspace_widgets.lens.fitted import LensMismatchError as LensMismatchError
from classspace_widgets.lens.lens import ClassLens as ClassLens
from classspace_widgets.lens.pooled import PooledLens as PooledLens
from classspace_widgets.lens.ranking import class_ranks
from classspace_widgets.lens.ranking import count_above as count_above
from classspace_widgets.lens.readout import Readout as Readout

__all__ = ["FittedLens", "class_ranks"]
