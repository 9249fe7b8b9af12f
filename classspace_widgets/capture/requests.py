"""What a view asks for: JSON from a browser, which is checked before anything is computed from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classspace_widgets.files import readable
from classspace_widgets.lookup import whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CLASSES = 50
"""Classes of one request; views ask for the two that are looked at, so more is a mistake."""
MAX_NEIGHBOURS = 50
"""Nearest states of one request; views show a few."""
MAX_INTERVENTIONS = 100
"""Interventions of one request; a person who clicks applies a few."""
MAX_LETTERS = 1000
"""Letters of a name or a label."""


@dataclass(frozen=True)
class Request:
    """The parameters of a request, and the buffers that came with it.

    Every method raises ``TypeError`` or ``ValueError`` for a value that is not what it must be.
    """

    params: dict[str, Any]
    buffers: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.params, dict):
            raise TypeError(f"what a request asks for must be a JSON object, got {type(self.params).__name__}")

    def __contains__(self, name: str) -> bool:
        return name in self.params

    def text(self, name: str, default: str = "") -> str:
        """A short text."""
        text = self.params.get(name, default)
        if not isinstance(text, str) or len(text) > MAX_LETTERS:
            raise ValueError(f"{name} must be a text of at most {MAX_LETTERS} letters")
        return readable(text)

    def class_index(self, count: int) -> int:
        """The class that the request is about, of ``count``."""
        if "class" not in self:
            raise ValueError(f"the request must name a class: class must be a whole number in 0..{count - 1}")
        return whole_number(self.params["class"], "class", 0, count - 1)

    def whole(self, name: str, low: int, high: int, *, default: int | None = None) -> int:
        """A whole number in ``low..high``."""
        if name not in self and default is not None:
            return default
        return whole_number(self.params.get(name), name, low, high)

    def numbers(self, name: str, count: int, *, default: list[int] | None = None) -> list[int]:
        """Numbers of classes or tokens in ``0..count-1``, each once."""
        given = self.params.get(name)
        if given is None and default is not None:
            return default
        if not isinstance(given, list) or (not given and default is None):
            raise TypeError(f"{name} must be a list of whole numbers in 0..{count - 1}, got {str(given)[:60]}")
        found = list(dict.fromkeys(whole_number(value, name, 0, count - 1) for value in given))
        if name == "classes" and len(found) > MAX_CLASSES:
            raise ValueError(f"at most {MAX_CLASSES} classes can be asked for at once, got {len(found)}")
        return found or list(default or [])

    def interventions(self) -> list[dict[str, Any]]:
        """The interventions, as JSON describes them."""
        spec = self.params.get("spec")
        if not isinstance(spec, list) or not 1 <= len(spec) <= MAX_INTERVENTIONS:
            raise ValueError(f"spec must be a list of 1 to {MAX_INTERVENTIONS} interventions")
        return spec

    def labels(self, default: list[str]) -> list[str]:
        """What each intervention is called; by default as in ``default``, which has one text for each."""
        labels = self.params.get("labels", default)
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise ValueError("labels must be a list of texts, one for each intervention")
        if len(labels) != len(default):
            raise ValueError(f"expected a label for each of {len(default)} interventions, got {len(labels)}")
        return [readable(name) for name in labels]
