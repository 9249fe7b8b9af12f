"""The units that a run counts: batches of a data set with a length, shards of one without; and the steps through them.

A unit is done when all of its pictures have been counted. A shard may also be counted in part: how many of its pictures
were taken is kept, with a fingerprint of some of them, and a run that goes on passes over as many. If these are other
pictures than before, counting would go wrong unseen, so it stops.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classspace_widgets.data.prepare import Item, Preparer, Unreadable, prepared_batches
from classspace_widgets.data.shards import SHARD, Shards
from classspace_widgets.masks import DatasetError
from classspace_widgets.pictures import shown_name

if TYPE_CHECKING:
    Prepared = list[Item | Unreadable]

CHECKED = 32
"""Every so manieth picture of a shard is compared when a run goes on."""


class ChangedStreamError(DatasetError):
    """A shard gives other pictures than before the run was interrupted."""


@dataclass(frozen=True)
class Taken:
    """How far a unit has been counted: its first ``count`` pictures, with the fingerprint ``mark`` of some of them."""

    count: int = 0
    mark: int = 0


@dataclass(frozen=True)
class Step:
    """Pictures to count together, and how far their unit is then; ``failure`` says why a shard ends here."""

    unit: int
    items: Sequence[Item | Unreadable]
    taken: Taken
    done: bool
    failure: str = ""


def n_units(dataset: Any, batch_size: int) -> int:
    """Number of units: shards, or batches."""
    return len(dataset.names) if isinstance(dataset, Shards) else -(-len(dataset) // batch_size)


def n_pictures(dataset: Any) -> int | None:
    """Number of pictures; None where it is not known."""
    return None if isinstance(dataset, Shards) else len(dataset)


def steps(
    prepare: Preparer, units: Iterable[int], taken: Mapping[int, Taken], *, batch_size: int, workers: int
) -> Iterator[Step]:
    """Prepared pictures of some units, each from where it was left on."""
    units = [int(unit) for unit in units]
    if isinstance(prepare.dataset, Shards):
        for unit in units:
            yield from _through_shard(prepare, unit, taken.get(unit, Taken()), batch_size, workers)
        return
    count = len(prepare.dataset)
    batches = (range(unit * batch_size, min((unit + 1) * batch_size, count)) for unit in units)
    for unit, items in zip(units, prepared_batches(prepare, batches, workers=workers), strict=True):
        yield Step(unit, items, Taken(len(items)), done=True)


def _through_shard(prepare: Preparer, unit: int, start: Taken, batch_size: int, workers: int) -> Iterator[Step]:
    """One shard in batches; an error that it raises ends it, and is told in its last step."""
    shards: Shards = prepare.dataset
    failures: deque[str] = deque()

    def rows() -> Iterator[tuple[int, Any]]:
        try:
            for n, row in enumerate(shards.read(shards.names[unit])):
                if n == SHARD:
                    raise DatasetError(f"a shard may have {SHARD:,} pictures, this one has more")
                yield unit * SHARD + n, row
        except Exception as error:  # readers of files and networks raise errors of any type
            failures.append(shown_name(f"{type(error).__name__}: {error}"))

    remaining = rows()
    _pass_over(prepare, unit, remaining, start)
    taken = start
    for items in prepared_batches(prepare, _batches(remaining, batch_size), workers=workers):
        named = [_named(item, shards.names[unit]) for item in items]
        taken = Taken(taken.count + len(items), _marked(taken, items))
        yield Step(unit, named, taken, done=False)
    failure = ""
    if failures:
        failure = f"shard {shown_name(shards.names[unit])}, from its picture {taken.count} on: {failures[0]}"
    yield Step(unit, [], taken, done=not failure, failure=failure)


def _batches(rows: Iterator[tuple[int, Any]], size: int) -> Iterator[list[tuple[int, Any]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _pass_over(prepare: Preparer, unit: int, rows: Iterator[tuple[int, Any]], start: Taken) -> None:
    """Skip the pictures that have been counted; raises unless they are the same ones as then."""
    passed = Taken()
    while passed.count < start.count:
        found = next(rows, None)
        if found is None:
            break
        items = [prepare(*found)] if passed.count % CHECKED == 0 else []
        passed = Taken(passed.count + 1, _marked(passed, items))
    if passed != start:
        name = shown_name(prepare.dataset.names[unit])
        raise ChangedStreamError(
            f"the first {start.count} pictures of the shard {name} are not those that were counted before the interruption, so "
            "some would be counted twice and others never; it must give the same pictures in the same order whenever it is "
            "read: do not shuffle it (or fix the seed), and let it start anew; or remove the checkpoint to start again"
        )


def _marked(taken: Taken, items: Sequence[Item | Unreadable]) -> int:
    """The fingerprint of a shard after some more pictures."""
    mark = taken.mark
    for n, item in enumerate(items, start=taken.count):
        if n % CHECKED == 0:
            seen = b"" if isinstance(item, Unreadable) else item.pixels[:, ::4, ::4].contiguous().numpy().tobytes()
            label = -1 if isinstance(item, Unreadable) else item.label
            mark = zlib.crc32(seen + str(label).encode(), mark)
    return mark


def _named(item: Item | Unreadable, shard: str) -> Item | Unreadable:
    """Where in the data an unreadable picture is, in words."""
    if isinstance(item, Item):
        return item
    return Unreadable(item.index, f"shard {shown_name(shard)}, picture {item.index % SHARD}: {item.reason}")
