"""The random control, and the same space on another device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classspace_widgets.models.placing import copied

if TYPE_CHECKING:
    from classspace_widgets.space.space import ClassSpace


def random_twin(space: ClassSpace, *, seed: int = 0) -> ClassSpace:
    """The same architecture with freshly drawn weights; see `ClassSpace.random_twin`.

    Parameters
    ----------
    space : ClassSpace
    seed : int

    Returns
    -------
    ClassSpace

    Examples
    --------
    >>> random_twin(ClassSpace.bundled(), seed=1).n_classes
    24
    """
    return space.random_twin(seed)


def on_device(space: ClassSpace, device: str) -> ClassSpace:
    """The same space on another device; the caller's model stays where it is."""
    return space.of_model(copied(space.model), device=device)
