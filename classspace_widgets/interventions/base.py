"""The base of all interventions: conversion to and from plain dicts and Python code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from classspace_widgets.describe import short

if TYPE_CHECKING:
    from typing_extensions import Self

    from classspace_widgets.interventions.tokens import Sizes


@dataclass(frozen=True, repr=False)
class Intervention:
    """The description of one change of a forward pass; every subclass is one kind of intervention.

    Blocks are numbered 1..L, tokens 0..T-1 (prefix tokens first), heads 0..H-1; ``None`` means all.  Made by `from_spec`,
    or as one of the subclasses.
    """

    registry: ClassVar[dict[str, type[Intervention]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__name__.startswith("_"):
            Intervention.registry[cls.__name__] = cls

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={short(value)}" for name, value in self._changed().items())
        return f"{type(self).__name__}({given})"

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _changed(self) -> dict[str, Any]:
        """Fields that differ from their defaults, and all required ones."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.default is MISSING or getattr(self, f.name) != f.default
        }

    def check(self, sizes: Sizes) -> None:
        """Raise ``ValueError`` if the intervention does not fit a model of these sizes."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of JSON values: ``{"type": "RemoveTokens", "tokens": [5, 6]}``."""
        return {"type": type(self).__name__} | {name: _plain(value) for name, value in self._changed().items()}

    def to_code(self) -> str:
        """The Python expression that builds this intervention."""
        arguments = ", ".join(f"{name}={_code(_plain(value))}" for name, value in self._changed().items())
        return f"{type(self).__name__}({arguments})"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build an intervention from `to_dict`'s output; raises ``ValueError`` with what is wrong."""
        if not isinstance(data, Mapping):
            raise TypeError(f"an intervention must be a dict with a 'type', got {data!r}")
        kind = data.get("type")
        if kind not in Intervention.registry:
            raise ValueError(f"intervention type must be one of {sorted(Intervention.registry)}, got {kind!r}")
        target = Intervention.registry[str(kind)]
        if not issubclass(target, cls):
            raise ValueError(f"expected a {cls.__name__}, got a {kind}")
        values = {name: value for name, value in data.items() if name != "type"}
        known = {f.name for f in fields(target)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"{kind} has no {', '.join(map(repr, unknown))}; it takes {', '.join(sorted(known))}")
        missing = [f.name for f in fields(target) if f.default is MISSING and f.name not in values]
        if missing:
            raise ValueError(f"{kind} needs {', '.join(map(repr, missing))}")
        return target(**values)


def to_spec(interventions: Sequence[Intervention]) -> list[dict[str, Any]]:
    """Interventions as a list of plain dicts, in order.

    Parameters
    ----------
    interventions : sequence of Intervention

    Returns
    -------
    list of dict
        Only JSON values; `from_spec` reads them.

    Examples
    --------
    >>> from classspace_widgets.interventions import KnockOutAttention
    >>> to_spec([KnockOutAttention("no_cls")])
    [{'type': 'KnockOutAttention', 'kind': 'no_cls'}]
    """
    return [i.to_dict() for i in interventions]


def from_spec(spec: Sequence[Mapping[str, Any]]) -> list[Intervention]:
    """Interventions from a list of plain dicts.

    Parameters
    ----------
    spec : sequence of mapping
        From `to_spec`.

    Returns
    -------
    list of Intervention

    Raises
    ------
    ValueError
        If an entry is wrong; the message says which, and why.

    Examples
    --------
    >>> from_spec([{"type": "RemoveTokens", "tokens": [5]}])
    [RemoveTokens(tokens=(5,))]
    """
    if isinstance(spec, (str, bytes, Mapping)) or not isinstance(spec, Sequence):
        raise TypeError(f"a specification must be a list of dicts, got {type(spec).__name__}")
    built = []
    for number, item in enumerate(spec, start=1):
        try:
            built.append(Intervention.from_dict(item))
        except (TypeError, ValueError) as error:
            raise type(error)(f"intervention {number} of {len(spec)}: {error}") from error
    return built


def to_code(interventions: Sequence[Intervention], *, space: str = "space", images: str = "image") -> str:
    """Python code that applies the interventions to ``images`` and makes the `Trace`.

    Parameters
    ----------
    interventions : sequence of Intervention
    space, images : str
        Names of the variables in the code.

    Returns
    -------
    str

    Examples
    --------
    >>> from classspace_widgets.interventions import RemoveTokens
    >>> print(to_code([RemoveTokens(tokens=[5])]))
    from classspace_widgets.interventions import RemoveTokens, trace_with
    <BLANKLINE>
    interventions = [
        RemoveTokens(tokens=[5]),
    ]
    trace = trace_with(space, image, interventions)
    <BLANKLINE>
    """
    names = sorted({type(i).__name__ for i in interventions} | {"trace_with"})
    listed = "".join(f"    {i.to_code()},\n" for i in interventions)
    sources = sorted({s for i in interventions if isinstance(s := i._changed().get("source"), str)})
    extra = f", sources={{{', '.join(f'{s!r}: {s}' for s in sources)}}}" if sources else ""
    return (
        f"from classspace_widgets.interventions import {', '.join(names)}\n\n"
        + (f"interventions = [\n{listed}]\n" if listed else "interventions = []\n")
        + f"trace = trace_with({space}, {images}, interventions{extra})\n"
    )


def _plain(value: Any) -> Any:
    """A JSON value: tuples as lists."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, float, str)):
        return value
    raise ValueError(
        f"a {type(value).__name__} cannot be written as JSON: give the source a name, such as source='other', and pass "
        "sources={'other': trace}, or to a view other=trace"
    )


def _code(value: Any) -> str:
    """Like ``repr``; contiguous integers as a range, nested booleans as 0 and 1."""
    if isinstance(value, list):
        if value and all(isinstance(v, list) and v and isinstance(v[0], bool) for v in value):
            return "[" + ", ".join("[" + ", ".join(str(int(cell)) for cell in row) + "]" for row in value) + "]"
        whole = all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        if whole and len(value) > 4 and value == list(range(value[0], value[-1] + 1)):
            return f"range({value[0]}, {value[-1] + 1})"
    return repr(value)
