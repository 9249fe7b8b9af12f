"""One HTML file that makes no request: scripts, styles and data inline, under a policy that forbids the network."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from classspace_widgets.export.packed import UNPACK, packed, packed_scripts, policy
from classspace_widgets.progress import progress_bar
from classspace_widgets.snapshot.container import byte_planes
from classspace_widgets.snapshot.still import caption, still_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from classspace_widgets.progress import Bar
    from classspace_widgets.snapshot.snapshot import Snapshot
    from classspace_widgets.tours import Tour

    Items = Sequence["Mount | Figure | str | list[Mount]"]


@dataclass(frozen=True)
class Mount:
    """A view on a snapshot, to be placed in a page.

    Attributes
    ----------
    snapshot : Snapshot
    view : str
        Name of the view, ``"Explorer"`` or a single one.
    state : dict
        The session's state to start from.
    options : dict
        The view's options.
    pinned : list of Snapshot
        Intervened passes that stay explorable in the page.
    pins : mapping of str to interventions
        Passes that are still to be run for ``pinned``, by name.
    model : bytes
        The container of the model that runs in the page; empty: none does.
    live : bool
        Whether the view's session keeps its model for when the kernel is gone.
    session : str
        Name of the session; views of one share their state in the page too.  Empty: the view has its own.
    tours : tuple of Tour
        Guided tours that it offers.
    links : sequence of dict
        Sessions that this one is linked to: ``{"other": name, "names": names of the state}``.
    """

    snapshot: Snapshot
    view: str = "Explorer"
    state: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    pinned: tuple[Snapshot, ...] = ()
    pins: Mapping[str, Any] = field(default_factory=dict)
    model: bytes = b""
    live: bool = False
    session: str = ""
    links: Sequence[Mapping[str, Any]] = ()
    tours: tuple[Tour, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A Bokeh figure's pieces: the HTML and script of its own, and the scripts of BokehJS it needs."""

    html: str
    scripts: tuple[str, ...]
    library: tuple[str, ...]


LATER_TYPE = "application/x-classspace-script"
"""Type of a script that the front end runs when it needs it (``js/src/core/scripts.ts``)."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1a1d21; --quiet: #626a73; --rule: #dfe3e8; --link: #1a5fb4; }
@media screen and (prefers-color-scheme: dark) { :root:not([data-theme=light]) { --page: #14171a; --ink: #e6e9ec; --quiet: #98a1ab;
  --rule: #2b3137; --link: #7fb2f0; } }
@media screen { :root[data-theme=dark] { --page: #14171a; --ink: #e6e9ec; --quiet: #98a1ab; --rule: #2b3137;
  --link: #7fb2f0; color-scheme: dark; } }
:root[data-theme=light] { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 92rem; margin: 0 auto; padding: 1.5rem clamp(.75rem, 3vw, 2rem) 3rem; }
.text { max-width: 44rem; } .text img { max-width: 100%; } a { color: var(--link); }
.text h1 { font-size: 1.7rem; line-height: 1.2; margin: .2em 0 .4em; } .text code { font-size: .9em; }
.text table { border-collapse: collapse; } .text td, .text th { border: 1px solid var(--rule); padding: .25em .6em; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.csw-mount { margin: 1.25rem -2px; min-height: 4rem; }
.csw-gallery { display: grid; gap: 1.25rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
main > .text:first-child > :first-child { padding-right: 3.5rem; }
figure.still { margin: 0; } figure.still img { max-width: 100%; border-radius: 6px; }
figure.still figcaption, footer { color: var(--quiet); font-size: .8rem; }
.csw-mounted > figure.still { display: none; }
footer { margin-top: 2rem; }
body > button { position: absolute; top: 12px; right: 12px; z-index: 20; padding: 3px 11px; border-radius: 14px;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent); background: Canvas; color: inherit;
  font: 12px/18px system-ui, sans-serif; cursor: pointer; }
@media print { body > button { display: none; } :root { color-scheme: light; } main { max-width: none; padding: 0; } }
""".strip()


def render(
    items: Items,
    *,
    title: str,
    script: str,
    later: Mapping[str, str],
    engine: str = "",
    theme: str = "auto",
    footer: str = "",
) -> str:
    """The page as text.

    Parameters
    ----------
    items : sequence
        Mounts, galleries (lists of mounts), figures, and Markdown texts, in reading order.
    title : str
    script : str
        The front end (``static/widget.js``), a module that mounts the views when it stands in a page.
    later : mapping of str to str
        Scripts that the front end loads when it needs them, by name: they stand in the page as text that does not run.
    engine : str
        What runs the model (``static/engine.js``), for a page whose views carry one.
    theme : str
        ``"auto"``, ``"light"`` or ``"dark"``; a toggle in the page changes it.
    footer : str
        A line of plain text at the end.
    """
    with progress_bar(sum(1 + len(m.pinned) for m in _mounts(items)), "packing", "view") as bar:
        blocks = _Blocks(bar)
        body, figures = _body(items, blocks)
    if not any("<h1" in part for part in body):
        body.insert(0, f'<h1 class="unseen">{html.escape(title)}</h1>')
    modules = [script] if blocks.texts else []
    live = any(mount.model for mount in _mounts(items))
    scripts = [engine] if live else []
    waiting = later if modules else {}
    plain = [*([UNPACK] if figures else []), *scripts, *modules]
    for text in (*plain, *waiting.values()):
        if "</script" in text.lower():
            raise ValueError("a script of the page holds '</script', which would end it early")
    chosen = "" if theme == "auto" else f' data-theme="{html.escape(theme)}"'
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"{chosen}>',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy([*figures, *plain, *waiting.values()], workers=live))}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="generator" content="classspace-widgets">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            f"<footer>{html.escape(footer)}</footer>" if footer else "",
            "</main>",
            *blocks.texts,
            packed_scripts(figures) if figures else "",
            *(f"<script>{text}</script>" for text in scripts),
            *(f'<script type="{LATER_TYPE}" data-name="{name}">{text}</script>' for name, text in waiting.items()),
            *(f'<script type="module">{text}</script>' for text in modules),
            "</body>",
            "</html>",
            "",
        ]
    )


def _mounts(items: Items) -> list[Mount]:
    """The views among the items of a page."""
    return [m for item in items for m in (item if isinstance(item, list) else [item]) if isinstance(m, Mount)]


def _body(items: Items, blocks: _Blocks) -> tuple[list[str], list[str]]:
    """The items as HTML, in reading order, and the scripts of the figures among them: first those of BokehJS, each once."""
    body: list[str] = []
    scripts: list[str] = []
    library: dict[str, None] = {}
    sessions = list(dict.fromkeys(mount.session for mount in _mounts(items) if mount.session))
    for item in items:
        if isinstance(item, str):
            body.append(f'<div class="text">{markdown(item)}</div>')
        elif isinstance(item, Figure):
            body.append(item.html)
            library |= dict.fromkeys(item.library)
            scripts += item.scripts
        elif isinstance(item, list):
            gallery = "".join(_mount(mount, blocks, sessions) for mount in item)
            body.append(f'<div class="csw-gallery">{gallery}</div>')
        else:
            body.append(_mount(item, blocks, sessions))
    return body, [*library, *scripts]


def page_title(snapshots: Sequence[Snapshot]) -> str:
    """A title from what is shown: the first picture's class and model."""
    if not snapshots:
        return "Class embedding space"
    first = snapshots[0]
    return f"{first.class_names[first.predicted[0]]} in {first.meta['model']['name']}"


def bokeh_figure(figure: Any) -> Figure:
    """A Bokeh model's pieces, with the parts of BokehJS it needs."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    parts = ["bokeh"]
    kinds = {type(model).__module__ for model in figure.references()}
    if any(kind.startswith("bokeh.models.widgets") for kind in kinds):
        parts.append("bokeh-widgets")
    if "bokeh.models.widgets.tables" in kinds:
        parts.append("bokeh-tables")
    script, div = components(figure, wrap_script=False)
    return Figure(div, (script,), tuple(Resources(mode="inline", components=parts).js_raw))


def markdown(text: str) -> str:
    """Markdown as HTML; raw HTML in it is shown as text."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))


def payload(container: bytes) -> str:
    """A container, its arrays in planes of bytes, gzipped, in base64."""
    return packed(byte_planes(container))


class _Blocks:
    """The data of a page: they stand at its end, so that the text shows first; what several views show stands once."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.texts: list[str] = []
        self._models: dict[bytes, str] = {}
        self._known: dict[int, tuple[str, Snapshot]] = {}  # by identity, and held so that no other gets the same

    def add(self, snapshot: Snapshot) -> str:
        """The name of the block that holds a snapshot."""
        with self.bar.part(1):
            if id(snapshot) not in self._known:
                self._known[id(snapshot)] = (self._block(snapshot.pack()), snapshot)
        return self._known[id(snapshot)][0]

    def add_model(self, container: bytes) -> str:
        """The name of the block that holds a model."""
        if container not in self._models:
            self._models[container] = self._block(container)
        return self._models[container]

    def _block(self, container: bytes) -> str:
        name = f"csw-data-{len(self.texts)}"
        start = f'<script type="application/x-classspace" id="{name}" data-encoding="planes+gzip+base64">'
        self.texts.append(f"{start}{payload(container)}</script>")
        return name


def _mount(mount: Mount, blocks: _Blocks, sessions: list[str]) -> str:
    """The place of a view; `sessions` are those of the page."""
    name, *pinned = (blocks.add(s) for s in (mount.snapshot, *mount.pinned))
    links = [
        {"other": str(sessions.index(link["other"])), "names": link["names"]}
        for link in mount.links
        if link["other"] in sessions
    ]
    attributes = {
        "data-view": mount.view,
        "data-snapshot": name,
        "data-pinned": " ".join(pinned),
        "data-engine": blocks.add_model(mount.model) if mount.model else "",
        "data-state": json.dumps(mount.state),
        "data-options": json.dumps(mount.options),
        "data-session": str(sessions.index(mount.session)) if mount.session else "",
        "data-links": json.dumps({"links": links}) if links else "",
    }
    listed = " ".join(f'{key}="{html.escape(value)}"' for key, value in attributes.items() if value)
    words = html.escape(caption(mount.snapshot))
    address = still_address(mount.snapshot, size=224, quality=70)
    picture = f'<img src="{address}" alt="{words}">' if address else ""
    return (
        f'<div class="csw-mount" {listed}><figure class="still">{picture}'
        f"<figcaption>{words}</figcaption></figure>"
        "<noscript><p>This view is interactive: it needs JavaScript, and makes no network request.</p></noscript></div>"
    )
