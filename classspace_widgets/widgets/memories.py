"""`MemoryBrowser`: search a class, see the neurons that stand for it; pick a neuron, see its classes and patches."""

from __future__ import annotations

from typing import Any

import traitlets as t

from classspace_widgets.lookup import class_index
from classspace_widgets.snapshot.atlas import MemoryAtlas
from classspace_widgets.widgets._assets import script
from classspace_widgets.widgets._base import Widget


class MemoryBrowser(Widget):
    """The memories of attention and MLP, to be looked through by class and by neuron; works without a kernel.

    Parameters
    ----------
    data : MemoryAtlas or ClassSpace
        A model is read first (`memory_atlas.memory_atlas`), in one pass over the pictures.
    dataset : Any, optional
        With a model: pictures whose patches may activate neurons.
    class_name : str, optional
        The class to start from.
    **options
        Of `memory_atlas.memory_atlas`.

    Attributes
    ----------
    class_index : int
        The class whose neurons are listed.
    neuron : list [block, which, value]
        The neuron that is shown: block from 1, 0 for attention or 1 for the MLP, value vector from 0. An empty list:
        the first of the class.

    Raises
    ------
    TypeError
        For anything but a model or an atlas.

    Examples
    --------
    >>> browser = MemoryBrowser(ClassSpace.bundled(), class_name="fish")
    >>> browser.neuron = [8, 1, 0]
    >>> browser.class_name
    'fish'
    """

    view = t.Unicode("MemoryBrowser").tag(sync=True)
    _atlas = t.Bytes().tag(sync=True)
    class_index = t.Int(0, help="Class whose neurons are listed.").tag(sync=True)
    neuron = t.List(t.Int(), help="Block, 0 for attention or 1 for the MLP, value vector.").tag(sync=True)

    def __init__(self, data: Any, dataset: Any = None, *, class_name: str | None = None, **options: Any) -> None:
        """Make the browser; the class says what can be given."""
        self.atlas = _as_atlas(data, dataset, options)
        self._esm = script("memories.js")
        start = {} if class_name is None else {"class_index": class_index(self.atlas.class_names, class_name)}
        super().__init__(_atlas=self.atlas.pack(), **start)

    def __repr__(self) -> str:
        return f"MemoryBrowser({self.class_name!r} in {self.atlas!r})"

    @property
    def class_names(self) -> list[str]:
        """Names of all C classes of the model."""
        return list(self.atlas.class_names)

    @property
    def class_name(self) -> str:
        """Name of the class whose neurons are listed; assign a name to list another's."""
        return str(self.atlas.class_names[self.class_index])

    @class_name.setter
    def class_name(self, name: str) -> None:
        self.class_index = class_index(self.atlas.class_names, name)

    @t.validate("class_index")
    def _valid_class(self, proposal: Any) -> Any:
        count = len(self.atlas.class_names)
        if not 0 <= proposal["value"] < count:
            raise t.TraitError(f"class_index must be in 0..{count - 1}, got {proposal['value']}")
        return proposal["value"]

    @t.validate("neuron")
    def _valid_neuron(self, proposal: Any) -> Any:
        value = proposal["value"]
        if value:
            blocks, widths = self.atlas.meta["model"]["blocks"], self.atlas.meta["widths"]
            good = len(value) == 3 and value[1] in (0, 1) and 1 <= value[0] <= blocks
            if not good or not 0 <= value[2] < widths[value[1]]:
                raise t.TraitError(
                    f"neuron must be [block 1..{blocks}, 0 (attention) or 1 (MLP), value vector below "
                    f"{widths[0]} (attention) or {widths[1]} (MLP)], got {value}"
                )
        return value


def _as_atlas(data: Any, dataset: Any, options: dict[str, Any]) -> MemoryAtlas:
    if isinstance(data, MemoryAtlas):
        if dataset is not None or options:
            raise TypeError("an atlas is shown as it is: give the data set and options to memory_atlas, with the model")
        return data
    from classspace_widgets.memories.atlas import memory_atlas
    from classspace_widgets.space.space import ClassSpace

    if not isinstance(data, ClassSpace):
        raise TypeError(f"expected a ClassSpace or a MemoryAtlas, got {type(data).__name__}")

    return memory_atlas(data, dataset, **options)
