"""From anything that is a picture to pixels for a model.

`read` opens and converts pictures, `preprocessing` resizes and normalises them as the model's configuration says, `ready`
checks tensors that are input already, and `inputs` takes lists of all of these. `samples` has photographs to begin with.
"""

from classspace_widgets.images.inputs import prepare
from classspace_widgets.images.inputs import prepare_input as prepare_input
from classspace_widgets.images.preprocessing import Preprocessing as Preprocessing
from classspace_widgets.images.read import read_picture as read_picture
from classspace_widgets.images.ready import Prepared as Prepared
from classspace_widgets.images.samples import sample_photo

__all__ = ["prepare", "sample_photo"]
