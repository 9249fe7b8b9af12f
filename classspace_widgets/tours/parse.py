"""Tours as files: a title, and for every step a heading, a sentence, and a list of what it points at and waits for.

The form is a small part of Markdown, so that a tour can be read, mailed and shown anywhere; whatever is not of this form
is refused, with its line.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classspace_widgets.lookup import close_matches
from classspace_widgets.tours.conditions import assignments, conditions
from classspace_widgets.tours.text import runs
from classspace_widgets.tours.tour import Step, Tour
from classspace_widgets.tours.vocabulary import TARGETS

FIELDS = ("target", "until", "begin", "done")
"""What the list of a step may hold; the first two must be there."""
MOST_STEPS = 30
"""Steps of a tour; a story of more is several."""

FOLDER = Path(__file__).parent
BUNDLED = ("makes-up-its-mind", "four-ways")
"""Names of the tours that come with the package."""


class _Wrong(Exception):
    """What is wrong in a line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class _Section:
    """A heading, and the lines that follow it."""

    title: str
    line: int
    words: list[str] = field(default_factory=list)
    fields: dict[str, tuple[int, str]] = field(default_factory=dict)


def read_tour(source: str | os.PathLike[str]) -> Tour:
    """Read a tour.

    Parameters
    ----------
    source : str or path
        A Markdown file; the name of a tour of the package (`BUNDLED`); or the Markdown itself, of several lines.

    Returns
    -------
    Tour

    Raises
    ------
    FileNotFoundError
        If there is no such file or tour.
    ValueError
        If it is not of the form of a tour: the message names the line, what was expected, and what to do.

    Examples
    --------
    >>> read_tour("four-ways")
    Tour('Does this patch matter? Four ways to ask', 8 steps)
    >>> read_tour('''# Where is the fish?
    ...
    ... ## Find it
    ... Drag the **layer slider** to where the fish is first.
    ...
    ... - target: layer slider
    ... - until: class = fish and rank = 0
    ... ''').name
    'where-is-the-fish'
    """
    text, name, where = _found(source)
    try:
        return _tour(_sections(text), name, where)
    except _Wrong as wrong:
        raise ValueError(f"{where}, line {wrong.line}: {wrong}") from None


def as_tours(given: Any) -> tuple[Tour, ...]:
    """One tour or several, each a `Tour` or what `read_tour` takes; none of None.

    Raises
    ------
    ValueError
        If two of them have the same name.
    """
    if given is None:
        return ()
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    tours = tuple(one if isinstance(one, Tour) else read_tour(one) for one in listed)
    names = [tour.name for tour in tours]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"two tours are called {twice[0]!r}: a page's address could not tell them apart; rename one file"
        )
    return tours


def _found(source: str | os.PathLike[str]) -> tuple[str, str, str]:
    """Text, name (empty: of the title) and place of a tour."""
    if isinstance(source, str) and "\n" in source:
        return source, "", "tour"
    path = FOLDER / f"{source}.md" if source in BUNDLED else Path(source)
    if not path.is_file():
        known = ", ".join(BUNDLED)
        hint = close_matches(str(source), BUNDLED)
        raise FileNotFoundError(f"no tour and no file is called {str(source)!r}{hint}; the package has {known}")
    return path.read_text(encoding="utf-8-sig"), path.stem, path.name


def _sections(text: str) -> list[_Section]:
    """The title's section, and those of the steps."""
    sections: list[_Section] = []
    last = ""
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.fullmatch(r"(#+)\s+(.*\S)\s*", line)
        if heading:
            last = ""
            if len(heading[1]) != (2 if sections else 1):
                expected = "## and the title of a step" if sections else "# and the title of the tour"
                raise _Wrong(number, f"expected {expected}, got {line.strip()!r}")
            sections.append(_Section(heading[2], number))
        elif line.strip():
            if not sections:
                raise _Wrong(number, f"expected # and the title of the tour, got {line.strip()[:60]!r}")
            last = _take(sections[-1], line, number, last)
    return sections


def _take(section: _Section, line: str, number: int, last: str) -> str:
    """Add a line to its section; returns the field that the next line may continue."""
    item = re.fullmatch(r"[-*]\s+([^:]*?)\s*:\s*(.*?)\s*", line)
    if item:
        name, value = item.groups()
        if name not in FIELDS:
            raise _Wrong(
                number,
                f"a step has no {name!r}{close_matches(name, FIELDS)}; it has {', '.join(FIELDS)}, each as '- name: ...'",
            )
        if name in section.fields:
            raise _Wrong(number, f"{name} stands twice in this step; keep one")
        if not value:
            raise _Wrong(number, f"{name} is empty; write what it is after the colon, or take the line out")
        section.fields[name] = (number, value)
        return str(name)
    if last and line[:1].isspace():
        at, value = section.fields[last]
        section.fields[last] = (at, f"{value} {line.strip()}")
        return last
    if section.fields:
        raise _Wrong(
            number,
            f"expected '- name: ...' or the next step, got {line.strip()[:60]!r}; sentences stand before the list, and a long "
            "item goes on with two spaces in front",
        )
    section.words.append(line.strip())
    return ""


def _tour(sections: list[_Section], name: str, where: str) -> Tour:
    if not sections:
        raise _Wrong(1, "expected # and the title of the tour, got an empty file")
    first, *others = sections
    if first.fields:
        raise _Wrong(
            min(line for line, _ in first.fields.values()), "expected ## and the title of the first step before a list"
        )
    if not others:
        raise _Wrong(first.line, "the tour has no step; each starts with ## and its title")
    if len(others) > MOST_STEPS:
        raise _Wrong(
            others[MOST_STEPS].line, f"a tour has at most {MOST_STEPS} steps, got {len(others)}; make two of it"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", (name or first.title).lower()).strip("-") or "tour"
    return Tour(slug, first.title, runs(" ".join(first.words)), tuple(map(_step, others)), where)


def _step(section: _Section) -> Step:
    if not section.words:
        raise _Wrong(section.line, "the step has no sentence; write one below its title, before the list")
    for name in ("target", "until"):
        if name not in section.fields:
            example = "- target: layer slider" if name == "target" else "- until: block >= 4 (or - until: next)"
            raise _Wrong(section.line, f"the step has no {name}; add a line such as {example}")
    line, target = section.fields["target"]
    if target not in TARGETS:
        close = close_matches(target, list(TARGETS)) or f"; there is {', '.join(TARGETS)}"
        raise _Wrong(line, f"there is no control called {target!r}{close}")
    read: dict[str, Any] = {"begin": ()}
    for name, of in (("until", conditions), ("begin", assignments)):
        if name in section.fields:
            line, text = section.fields[name]
            try:
                read[name] = of(text)
            except ValueError as error:
                raise _Wrong(line, str(error)) from None
    done = section.fields.get("done", (0, ""))[1]
    lines = {"title": section.line, **{name: at for name, (at, _) in section.fields.items()}}
    return Step(section.title, runs(" ".join(section.words)), target, **read, done=runs(done), lines=lines)
