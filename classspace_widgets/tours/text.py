"""The sentences of a tour: Markdown's emphasis and code as runs of text, so that no HTML travels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

Run = tuple[str, str]
"""How a piece of text looks - ``""``, ``"em"``, ``"strong"`` or ``"code"`` - and the text."""

_OPEN = {"em_open": "em", "strong_open": "strong"}


def runs(text: str) -> list[Run]:
    """The pieces of a line of Markdown; everything but ``*emphasis*``, ``**strong**`` and code stays text.

    Examples
    --------
    >>> runs("Drag the **slider** to `block 5`, <b>now</b>.")
    [('', 'Drag the '), ('strong', 'slider'), ('', ' to '), ('code', 'block 5'), ('', ', <b>now</b>.')]
    """
    found: list[Run] = []
    style = [""]
    for token in _markdown().parseInline(text)[0].children or []:
        if token.type in _OPEN:
            style.append(_OPEN[token.type])
        elif token.type.endswith("_close"):
            style.pop()
        elif token.type == "code_inline":
            found.append(("code", token.content))
        elif token.content:
            if found and found[-1][0] == style[-1]:
                found[-1] = (style[-1], found[-1][1] + token.content)
            else:
                found.append((style[-1], token.content))
    return found


def plain(pieces: list[Run]) -> str:
    """The text of runs alone."""
    return "".join(text for _, text in pieces)


def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("zero").enable(["emphasis", "backticks", "escape", "entity"])
