"""What a step waits for, and where it begins: ``class = fish and block >= 4`` and ``tokens = none, reading = rank``.

A line is checked twice: when a tour is read, for names and forms (`conditions`, `assignments`); and when it is put beside
a picture, for what this model has (`Condition.value_for`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.lookup import class_index, close_matches
from classspace_widgets.tours.vocabulary import FACTS, OPERATORS, Fact

if TYPE_CHECKING:
    from classspace_widgets.snapshot.snapshot import Snapshot

NEXT = "next"
"""The condition of a step that waits for nothing."""
_SPLIT = re.compile(rf"\s*({'|'.join(OPERATORS)})\s*")
_AND = re.compile(r"\s+and\s+(?=(?:(?!\band\b)[a-z_ -])+(?:[<>]|!?=))")
_COMMA = re.compile(r"\s*,\s*(?=[a-z_ -]+(?:[<>]|!?=))")
_NUMBER = re.compile(r"\d+")
_LIST = re.compile(r"\d+(\s*,\s*\d+)*")
_PATCH = re.compile(r"patch (\d+)\s*,\s*(\d+)")
_FORMS = {
    "int": ((_NUMBER,), "must be a whole number"),
    "percent": ((re.compile(r"(100|\d{1,2})%?"),), "must be a percentage such as 80%"),
    "ints": (
        (re.compile("none|object"), _LIST, _PATCH),
        "must be none, object, a patch (patch 7,6: row and column from 1) or token numbers (3,4)",
    ),
    "head": ((re.compile(r"none|\d+\s*,\s*\d+"),), "must be none, or a block and a head (7,0)"),
    "yes or no": ((re.compile("yes|no"),), "must be yes or no"),
}
"""How values of a kind are written, and what to say where one is not."""


@dataclass(frozen=True)
class Condition:
    """One comparison.

    Attributes
    ----------
    fact : str
        A name of `vocabulary.FACTS`.
    operator : str
    text : str
        What it is compared with, as it was written.
    """

    fact: str
    operator: str
    text: str

    @property
    def model(self) -> bool:
        """Whether it can only come about with a model at hand."""
        return FACTS[self.fact].model and not (self.fact == "what-if" and self.text == "none" and self.operator == "=")

    def value_for(self, snapshot: Snapshot) -> Any:
        """The value as the browser compares it, in this picture and model.

        Raises
        ------
        ValueError
            If there is no such class, block, head, lens, token or object mask.
        """
        kind, text = FACTS[self.fact].kind, self.text
        if "object" in (text, *self.fact.split()) and not _has_object(snapshot):
            raise ValueError(
                f"{self.fact} {self.operator} {text} needs to know where the object is, and this picture has no mask: "
                "give one, as in Explorer(trace, mask=...), or wait for something else"
            )
        if text == "none":
            return [] if kind == "ints" else "none" if kind == "choice" else None
        if kind == "class" or kind == "class or none":
            return class_index(snapshot.class_names, int(text) if text.isdigit() else text)
        if kind == "ints":
            return "object" if text == "object" else _tokens(text, snapshot)
        if kind == "head":
            return _head(text, snapshot)
        if kind in ("int", "percent"):
            number = int(text.removesuffix("%"))
            if self.fact == "block" and number > snapshot.n_blocks:
                raise ValueError(f"block must be in 0..{snapshot.n_blocks} in this model, got {number}")
            return number
        if self.fact == "lens":
            known = ["logit", *(lens["label"] for lens in snapshot.meta.get("lenses", []))]
            if text not in known:
                raise ValueError(f"this picture has no lens {text!r}; it has {', '.join(known)}")
        return text == "yes" if kind == "yes or no" else text


def conditions(text: str) -> tuple[Condition, ...]:
    """The comparisons of ``until:``, all of which must hold; none of ``next``.

    Examples
    --------
    >>> conditions("class = fish and block >= 4")
    (Condition(fact='class', operator='=', text='fish'), Condition(fact='block', operator='>=', text='4'))
    >>> conditions("next")
    ()
    >>> conditions("blok >= 4")
    Traceback (most recent call last):
    ValueError: there is nothing called 'blok' to wait for; close matches: block
    """
    return () if text.strip() == NEXT else tuple(_condition(part) for part in _AND.split(text.strip()))


def assignments(text: str) -> tuple[Condition, ...]:
    """The values of ``begin:``, from which the step starts.

    Examples
    --------
    >>> assignments("block = 0, tokens = none")[1]
    Condition(fact='tokens', operator='=', text='none')
    """
    made = tuple(_condition(part) for part in _COMMA.split(text.strip()))
    for one in made:
        if one.operator != "=":
            raise ValueError(f"a step begins with values: write {one.fact} = ..., not {one.fact} {one.operator} ...")
        if not FACTS[one.fact].state and (one.fact, one.text) != ("what-if", "none"):
            known = [name for name, fact in FACTS.items() if fact.state]
            raise ValueError(
                f"{one.fact} follows from others and cannot be set; set {', '.join(known)}, or what-if = none"
            )
    return made


def _condition(part: str) -> Condition:
    pieces = _SPLIT.split(part, maxsplit=1)
    if len(pieces) != 3 or not pieces[2]:
        raise ValueError(f"expected a comparison such as 'block >= 4', got {part!r}; to wait for nothing write next")
    name, operator, text = pieces
    if name not in FACTS:
        raise ValueError(
            f"there is nothing called {name!r} to wait for{close_matches(name, list(FACTS)) or '; there is ' + ', '.join(FACTS)}"
        )
    fact = FACTS[name]
    if operator not in fact.operators:
        raise ValueError(f"{name} can be compared with {' and '.join(fact.operators)} only, got {operator}")
    if problem := _problem(fact, text):
        raise ValueError(f"{name} {problem}, got {text!r}")
    return Condition(name, operator, text)


def _problem(fact: Fact, text: str) -> str:
    """What a value should have been; empty where it is right."""
    kind = fact.kind
    if kind == "choice":
        close = close_matches(text, fact.choices)
        return "" if text in fact.choices else f"must be one of {', '.join(fact.choices)}{close}"
    forms = _FORMS.get(kind)
    return "" if forms is None or any(form.fullmatch(text) for form in forms[0]) else forms[1]


def _has_object(snapshot: Snapshot) -> bool:
    mask = snapshot.arrays.get("mask")
    return mask is not None and bool(np.any(mask))


def _tokens(text: str, snapshot: Snapshot) -> list[int]:
    """Token numbers, or that of a patch by its row and column."""
    tokens = snapshot.meta["tokens"]
    rows, columns = tokens["grid"]
    if found := _PATCH.fullmatch(text):
        row, column = int(found[1]), int(found[2])
        if not (1 <= row <= rows and 1 <= column <= columns):
            raise ValueError(f"a patch must be in rows 1..{rows} and columns 1..{columns} in this model, got {text}")
        return [len(tokens["prefix"]) + (row - 1) * columns + column - 1]
    listed = [int(number) for number in text.split(",")]
    if bad := [number for number in listed if number >= tokens["count"]]:
        raise ValueError(f"tokens must be in 0..{tokens['count'] - 1} in this model, got {bad}")
    return listed


def _head(text: str, snapshot: Snapshot) -> list[int]:
    block, head = (int(number) for number in text.split(","))
    model = snapshot.meta["model"]
    if not (1 <= block <= model["blocks"] and head < model["heads"]):
        raise ValueError(
            f"head must be a block in 1..{model['blocks']} and a head in 0..{model['heads'] - 1} in this model, got {text}"
        )
    return [block, head]
