"""The form in which a view is saved in a notebook, for readers without a kernel.

A notebook stores two outputs beside the live view: a script that shows the working page in a frame, and a picture through
the depth of the model.  Of the three only the first that can be shown is shown.  In Jupyter's own pages the script's style
sheet hides the others, and the note that the live view's model is gone.  Anywhere else the script and the picture, which
follows it and is known by its size, bear the session's reference: a live view of that session hides them
(``js/src/core/saved.ts``).
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from classspace_widgets.export import front_end
from classspace_widgets.export.html import fitted
from classspace_widgets.export.items import as_mount
from classspace_widgets.export.live import with_model
from classspace_widgets.export.page import page_title, render
from classspace_widgets.export.size import estimate_bytes
from classspace_widgets.snapshot.filmstrip import filmstrip, with_lines
from classspace_widgets.snapshot.still import caption, has_pillow, with_readable_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classspace_widgets.export.page import Mount
    from classspace_widgets.snapshot.snapshot import Snapshot

SAVED_LIMIT = 2_000_000
"""Bytes of a page that a notebook keeps with every view; a larger one would make the notebook slow to open and to save."""

_SCRIPT = """
(() => {
  const { session, page, title, height, picture } = PARTS;
  // The classic notebook's element is jQuery's; pages that others make of a notebook name none.
  const here = typeof element === "undefined" ? document.currentScript.parentElement : element[0] ?? element;
  const output = ":is(.jp-OutputArea-child, .output_area)";
  const view = `${output}:has(.csw-view)`;
  const saved = `${output}:has(.csw-saved)`;
  const style = document.createElement("style");
  style.textContent =
    `${view} + ${saved}, ${view} + ${saved} + ${output}, ${output}:has(.csw-saved iframe) + ${output},` +
    `${output}:has(+ ${output} .csw-saved) .jupyter-widgets:not(:has(*)) { display: none; }`;
  const place = document.createElement("div");
  /** As long as the saved form stands in the page; `load` is heard on its way down, since it does not rise. */
  const hear = (target, type, act) => {
    const heard = (event) => (place.isConnected ? act(event) : target.removeEventListener(type, heard, true));
    target.addEventListener(type, heard, true);
  };
  place.className = "csw-saved";
  place.dataset.cswSaved = session;
  place.style.width = "100%";
  place.append(style);
  if (page) {
    const frame = document.createElement("iframe");
    Object.assign(frame, { title, loading: "lazy", srcdoc: page });
    frame.sandbox = "allow-scripts";
    frame.style.cssText = `display:block;width:100%;height:${height}px;border:0`;
    place.append(frame);
    hear(window, "message", ({ source, data }) => {
      const told = data?.cswHeight;
      if (source === frame.contentWindow && told > 0) frame.style.height = `${Math.min(told, 5000)}px`;
    });
  }
  here.append(place);
  const mark = () => {
    const [width, height] = picture ?? [];
    const follows = (one) => place.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING;
    const still = [...document.images].find((one) => follows(one) && one.naturalWidth === width && one.naturalHeight === height);
    if (!still) return;
    still.dataset.cswSaved = session;
    if (page) still.style.display = "none";
  };
  mark();
  hear(document, "load", mark);
})();
""".strip()


def saved_form(view: Any, form: str) -> list[dict[str, str]]:
    """What shows a view where there is no kernel: the working page in a frame, and a picture through the depth.

    A trusted notebook, and a page converted from one, run the script that puts the page into a frame and hides the
    picture.  A notebook that is not trusted yet, and whatever takes scripts out, is left with the picture.  Neither is
    HTML: where that is cleaned, the source of what is not allowed in it is shown as text.

    Parameters
    ----------
    view : View, Session or Snapshot
    form : str
        ``"page"`` or ``"picture"``; a page of more than 2 MB carries fewer classes, and where not even one fits becomes a
        picture.

    Returns
    -------
    list of dict
        The script's output and the picture's (without Pillow its words), by MIME type.
    """
    if form not in ("page", "picture"):
        raise ValueError(f"saved_form must be 'page', 'picture' or 'none', got {form!r}")
    mount = as_mount(view)
    class_index = mount.state.get("class_index", mount.snapshot.predicted[0])
    words, hint = caption(mount.snapshot, class_index), "A still picture: run the cell for the live view."
    parts: dict[str, Any] = {}
    smaller = _that_fits(mount) if form == "page" else None
    if smaller is not None:
        hint = "A still picture: run the cell, or trust this notebook, for the working view."
        # Of a live session the model goes with it, whatever its size.
        shown = with_model(smaller, mount.snapshot.source) if mount.live else smaller
        parts |= {
            "page": render(
                [shown],
                title=page_title([mount.snapshot]),
                script=front_end.runtime(),
                later=front_end.later_in_page([shown]),
                engine=front_end.engine() if mount.live else "",
            ),
            "title": mount.view,
            "height": 980 if mount.view == "Explorer" else 460,
        }
    parts["session"] = f"anywidget:{mount.session}"
    still = {"text/plain": f"{words}\n{hint}"}
    if has_pillow():
        still["image/png"], parts["picture"] = _picture(mount.snapshot, class_index, (words, hint))
    # In a page converted from the notebook the script stands in one of the page: it must not hold "</script".
    script = _SCRIPT.replace("PARTS", json.dumps(parts).replace("<", "\\u003c"))
    return [
        {"application/javascript": script, "text/plain": ""},
        still,
    ]


def _that_fits(mount: Mount) -> Mount | None:
    """The view, of as many classes as the limit allows."""
    if estimate_bytes([mount.snapshot]) <= SAVED_LIMIT:
        return mount
    return fitted(
        replace(mount, pins={}), SAVED_LIMIT, f"the {SAVED_LIMIT / 1e6:.1f} MB that a notebook keeps with a view"
    )


def _picture(snapshot: Snapshot, class_index: int, lines: Sequence[str]) -> tuple[str, tuple[int, int]]:
    """The class through the depth, in at most nine pictures over lines of text: a PNG in base64, its width and height."""
    from PIL import Image

    depth = snapshot.n_blocks
    blocks = sorted({round(i * depth / min(depth, 8)) for i in range(min(depth, 8) + 1)}) if depth else [0]
    picture = with_lines(filmstrip(with_readable_picture(snapshot), class_index, blocks=blocks), lines)
    buffer = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode(), picture.size
