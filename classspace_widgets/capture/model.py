"""The model itself as a container, for the engine of a page: sizes, preprocessing, and weights in float16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classspace_widgets.models.portable import portable_model
from classspace_widgets.models.refusals import UnsupportedModelError
from classspace_widgets.snapshot.container import pack

if TYPE_CHECKING:
    from classspace_widgets.space.space import ClassSpace


def model_container(space: ClassSpace) -> bytes:
    """A model as the engine of a page reads it.

    Parameters
    ----------
    space : ClassSpace

    Returns
    -------
    bytes
        A container of kind ``"model"``. It travels gzipped, and so with a checksum.

    Raises
    ------
    UnsupportedModelError
        For a model, or a preparation of pictures, that the engine does not know; with the reason.

    Examples
    --------
    >>> from classspace_widgets.snapshot.container import unpack
    >>> meta, arrays = unpack(model_container(ClassSpace.bundled()))
    >>> meta["kind"], meta["preprocessing"]["size"]
    ('model', [96, 96])
    """
    about, arrays = portable_model(space.adapter)
    return pack({"kind": "model", **about, "preprocessing": _preprocessing(space)}, arrays)


def _preprocessing(space: ClassSpace) -> dict[str, Any]:
    how = space.preprocessing
    height, width = how.size
    known = {"crop_mode": ("center", "squash"), "interpolation": ("bicubic", "bilinear")}
    for name, choices in known.items():
        if getattr(how, name) not in choices:
            raise UnsupportedModelError(
                f"{space.name} cannot run inside a page: its pictures are prepared with {name}={getattr(how, name)!r}, the "
                f"page knows {', '.join(choices)}; export it without live=True"
            )
    if height != width and how.crop_mode == "center":
        raise UnsupportedModelError(
            f"{space.name} cannot run inside a page: the page crops pictures to squares, the model takes {height} x {width} "
            "pixels; export it without live=True"
        )
    return {
        "size": [height, width],
        "mean": list(how.mean),
        "std": list(how.std),
        "crop": how.crop,
        "crop_mode": how.crop_mode,
        "interpolation": how.interpolation,
    }
