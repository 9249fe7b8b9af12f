"""`check_front_end`: what of all that views need works in the notebook at hand, in words that can be pasted into a report."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets as t

from classspace_widgets._version import __version__
from classspace_widgets.widgets._base import Widget

if TYPE_CHECKING:
    from collections.abc import Sequence

_BYTES = bytes(range(256))

_PARTNER = "export default { initialize() { return { answer: 42 }; } };"

_SCRIPT = """
const within = (promise, what) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(no, 5000, new Error(`no ${what} within 5 s`)))]);
const theme = (el) => {
  const marked = (name) => el.closest(`[${name}]`)?.getAttribute(name) ?? "none";
  const body = document.body;
  const editor = [...body.classList].filter((name) => name.startsWith("vscode-"));
  const wanted = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return `data-theme ${marked("data-theme")}, data-jp-theme-light ${body.dataset.jpThemeLight ?? "none"}, ` +
    `classes ${editor.join(" ") || "none"}, background ${getComputedStyle(body).backgroundColor}, the system wants ${wanted}`;
};
async function render({ model, el, host }) {
  const bytes = (view) => [...new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength)];
  const checks = {
    "values that come with a view": async () => {
      if (bytes(model.get("_bytes")).join() !== [...Array(256).keys()].join()) throw new Error("other bytes came");
    },
    "a value to the kernel and back": () => within(new Promise((done) => {
      model.on("change:_pong", () => model.get("_pong") === model.get("_ping") && done());
      model.set("_ping", Math.random());
      model.save_changes();
    }), "answer"),
    "a message with bytes to the kernel and back": () => within(new Promise((done, fail) => {
      model.on("msg:custom", (_, [view]) => (bytes(view).join() === "3,2,1" ? done() : fail(new Error("other bytes came"))));
      model.send({ reverse: true }, undefined, [new Uint8Array([1, 2, 3]).buffer]);
    }), "answer"),
    "linked views": async () => {
      if (!host?.getWidget) throw new Error("this notebook's anywidget is older than 0.11");
      const { exports } = await within(host.getWidget(model.get("_partner")), "other widget");
      if (exports.answer !== 42) throw new Error("the other widget is not what it should be");
    },
  };
  const lines = [model.get("_about")];
  for (const [what, check] of Object.entries(checks)) {
    lines.push(`${what}: ${await check().then(() => "works", (error) => `does not work (${error.message})`)}`);
  }
  lines.push(`theme: ${theme(el)}`);
  lines.push(`page: ${location.origin}, ${window === top ? "no frame" : "in a frame"}, ${el.clientWidth} px wide`);
  lines.push(`pages without a kernel: ${typeof DecompressionStream === "undefined" ? "cannot be unpacked" : "can be unpacked"}`);
  lines.push(`browser: ${navigator.userAgent}`);
  const report = document.createElement("pre");
  report.textContent = lines.join("\\n");
  report.style.whiteSpace = "pre-wrap";
  el.append(report);
  model.set("report", report.textContent);
  model.save_changes();
}
export default { render };
"""


class _Partner(Widget):
    """Another widget, to be found by the first one."""

    _esm = _PARTNER


class FrontEndCheck(Widget):
    """A check of the front end, which runs where it is shown.

    Made by `check_front_end`.

    Attributes
    ----------
    report : str
        What the browser found, a line each; empty until the output has been shown.
    """

    _esm = _SCRIPT
    _bytes = t.Bytes(_BYTES).tag(sync=True)
    _partner = anywidget.WidgetTrait().tag(sync=True)
    _about = t.Unicode().tag(sync=True)
    _ping = t.Float(0.0).tag(sync=True)
    _pong = t.Float(0.0).tag(sync=True)
    report = t.Unicode("").tag(sync=True)

    def __init__(self) -> None:
        """Make the check; it runs where it is shown."""
        packages = ", ".join(f"{name} {version(name)}" for name in ("anywidget", "ipywidgets"))
        about = f"classspace-widgets {__version__}, {packages}, Python {platform.python_version()}, {platform.system()}"
        super().__init__(_partner=_Partner(), _about=about)
        self.on_msg(self._reverse)

    def __repr__(self) -> str:
        return self.report or "FrontEndCheck(not shown yet)"

    @t.observe("_ping")
    def _answer(self, change: Any) -> None:
        self._pong = change["new"]

    def _reverse(self, _widget: Any, content: Any, buffers: Sequence[Any]) -> None:
        if isinstance(content, dict) and content.get("reverse"):
            self.send({"reversed": True}, buffers=[bytes(buffer)[::-1] for buffer in buffers])

    def close(self) -> None:
        """Close the check and its partner."""
        super().close()
        if getattr(self, "_partner", None) is not None:
            self._partner.close()


def check_front_end() -> FrontEndCheck:
    """Check, in the notebook at hand, all that views need of it: show the result as the last line of a cell.

    The output says in words what works: values and messages with bytes to the kernel and back, linked views, the theme, and
    where the browser keeps the output.  It is made to be pasted into a report about a notebook that the tests do not cover,
    such as Google Colab or VS Code.

    Returns
    -------
    FrontEndCheck
        Its ``report`` has the words, too, once it has been shown.

    Examples
    --------
    >>> from classspace_widgets import check_front_end
    >>> check_front_end()
    FrontEndCheck(not shown yet)
    """
    return FrontEndCheck()
