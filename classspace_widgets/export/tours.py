"""Guided tours of a page: they go to its explorers, and are checked against what the page carries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from classspace_widgets.export.items import mounts_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.export.items import Part
    from classspace_widgets.export.page import Mount
    from classspace_widgets.tours import Tour

EXPLORER = "Explorer"


def with_tours(parts: Sequence[Part], tours: tuple[Tour, ...]) -> list[Part]:
    """The parts of a page, of which the first explorer offers these tours rather than its own.

    Raises
    ------
    ValueError
        If there are tours and no explorer.
    """
    if not tours:
        return list(parts)
    first = next((mount for part in parts for mount in mounts_in(part) if mount.view == EXPLORER), None)
    if first is None:
        raise ValueError("tour=... needs an explorer to point at, and the page has none; give a Trace or an Explorer")

    def one(mount: Mount) -> Mount:
        return replace(mount, tours=tours) if mount is first else mount

    return [
        [one(m) for m in part] if isinstance(part, list) else one(part) if part is first else part for part in parts
    ]


def touring(parts: Sequence[Part], asked: tuple[Tour, ...]) -> tuple[list[Part], tuple[str, ...]]:
    """The parts with their tours as the browser takes them, and what is to be said of those that were left out.

    An explorer's own tour is left out of a page that lacks what it needs; one that the page was ``asked`` for raises.
    """
    notes: list[str] = []

    def one(mount: Mount) -> Mount:
        travelling = []
        for tour in mount.tours:
            try:
                travelling.append(tour.for_snapshot(mount.snapshot, live=bool(mount.model)))
            except ValueError as error:
                if tour in asked:
                    raise
                notes.append(f"The tour {tour.title!r} is left out: {error}.")
        return replace(mount, options={**mount.options, "tours": travelling}) if travelling else mount

    made: list[Part] = []
    for part in parts:
        mounts = [one(mount) for mount in mounts_in(part)]
        made.append(mounts if isinstance(part, list) else mounts[0] if mounts else part)
    return made, tuple(notes)
