"""A tour that was read, and how it travels to the browser beside a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classspace_widgets.tours.text import Run, plain
from classspace_widgets.tours.vocabulary import FACTS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from classspace_widgets.snapshot.snapshot import Snapshot
    from classspace_widgets.tours.conditions import Condition


@dataclass(frozen=True)
class Step:
    """One step: a control, a sentence, and what the reader is to do.

    Made by `read_tour`.

    Attributes
    ----------
    title : str
    text : list of runs
        The sentence, as pairs of a style and text.
    target : str
        The control that it points at: a name of ``vocabulary.json``.
    until : tuple of Condition
        What must have come about; empty: nothing, the reader goes on when ready.
    begin : tuple of Condition
        Values that are set when the step begins.
    done : list of runs
        What is said when it has come about.
    lines : mapping of str to int
        Where in the file its title and the items of its list stand, from 1.
    """

    title: str
    text: list[Run]
    target: str
    until: tuple[Condition, ...]
    begin: tuple[Condition, ...]
    done: list[Run]
    lines: Mapping[str, int]

    @property
    def model(self) -> bool:
        """Whether it needs a model at hand: a kernel, or a page that carries it."""
        return TARGETS[self.target].model or any(condition.model for condition in self.until)


@dataclass(frozen=True)
class Tour:
    """A guided tour: a title and its steps.

    Made by `read_tour`.

    Attributes
    ----------
    name : str
        Its name in a page's address: ``#tour=name&step=3``.
    title : str
    intro : list of runs
        A sentence that invites to it; may be empty.
    steps : tuple of Step
    source : str
        Where it was read, for messages.
    """

    name: str
    title: str
    intro: list[Run]
    steps: tuple[Step, ...]
    source: str

    def __repr__(self) -> str:
        return f"Tour({self.title!r}, {len(self.steps)} steps)"

    def __str__(self) -> str:
        lines = [f"{n}. {step.title}: {plain(step.text)}" for n, step in enumerate(self.steps, 1)]
        return "\n".join([self.title, *lines])

    @property
    def needs_model(self) -> int:
        """The first step that needs a model at hand, from 1; 0 where none does."""
        return next((n for n, step in enumerate(self.steps, 1) if step.model), 0)

    def for_snapshot(self, snapshot: Snapshot, *, live: bool) -> dict[str, Any]:
        """The tour as the browser takes it.

        Parameters
        ----------
        snapshot : Snapshot
            The picture that it is shown beside.
        live : bool
            Whether a model is at hand where it is shown.

        Returns
        -------
        dict
            Plain values, with classes, tokens and heads as this model numbers them.

        Raises
        ------
        ValueError
            If a step asks for what this picture and model do not have; with its line, and what to do.

        Examples
        --------
        >>> from classspace_widgets.scenes import gallery
        >>> from classspace_widgets.tours import read_tour
        >>> snapshot = ClassSpace.bundled().trace(gallery()[0].picture).snapshot()
        >>> read_tour("# A tour\\n## Look\\nLook.\\n- target: picture\\n- until: class = boat").for_snapshot(
        ...     snapshot, live=False
        ... )["steps"][0]["until"]
        [['class', '=', 1]]
        """
        if self.needs_model and not live:
            step = self.steps[self.needs_model - 1]
            raise ValueError(
                f"{self._place(step, 'title')} needs the model, and none is at hand; give a trace rather than a snapshot from a "
                "file, and a page live=True (classspace export --live)"
            )
        steps = [self._travelling(step, snapshot) for step in self.steps]
        return {"name": self.name, "title": self.title, "intro": self.intro, "steps": steps}

    def _travelling(self, step: Step, snapshot: Snapshot) -> dict[str, Any]:
        values: dict[str, list[Any]] = {}
        for name, listed in (("until", step.until), ("begin", step.begin)):
            try:
                values[name] = [one.value_for(snapshot) for one in listed]
            except ValueError as error:
                raise ValueError(f"{self._place(step, name)}: {error}") from error
        facts = [FACTS[one.fact].state for one in step.begin]
        state = {name: value for name, value in zip(facts, values["begin"], strict=True) if name}
        # Block and sublayer are one place, as in a session.
        if "block" in state and "sublayer" not in state:
            state["sublayer"] = "mlp" if state["block"] else "embedding"
        return {
            "title": step.title,
            "text": step.text,
            "target": step.target,
            "until": [[one.fact, one.operator, v] for one, v in zip(step.until, values["until"], strict=True)],
            "begin": state,
            "undo": "" in facts,
            "done": step.done,
        }

    def _place(self, step: Step, name: str) -> str:
        """Where something of a step stands, in words."""
        return f"{self.source}, line {step.lines[name]}: step {self.steps.index(step) + 1} ({step.title})"
