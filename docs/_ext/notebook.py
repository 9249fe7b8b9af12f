"""The demo notebook, as it is stored, in place of the page ``demo``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parents[2] / "demo.ipynb"
FENCE = "`" * 6
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return f"{FENCE}text\n{COLOURS.sub('', _text(output['text'])).rstrip()}\n{FENCE}"
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data:
        return ""  # Its saved view follows as an output of its own.
    if "text/html" in data:
        return f'{FENCE}{{raw}} html\n<div class="output">{_text(data["text/html"])}</div>\n{FENCE}'
    if "text/markdown" in data:
        return _text(data["text/markdown"])
    if "image/png" in data:
        return (
            f'{FENCE}{{raw}} html\n<img src="data:image/png;base64,{_text(data["image/png"]).strip()}" alt="">\n{FENCE}'
        )
    return f"{FENCE}text\n{_text(data['text/plain'])}\n{FENCE}" if "text/plain" in data else ""


def as_markdown(notebook: dict[str, Any]) -> str:
    """Cells and outputs, one below the other."""
    parts = []
    for cell in notebook["cells"]:
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"{FENCE}python\n{source}\n{FENCE}")
            parts += [shown for output in cell["outputs"] if (shown := _output(output))]
    return "\n\n".join(parts) + "\n"


def _read(app: Any, docname: str, source: list[str]) -> None:
    if docname == "demo":
        source[0] = as_markdown(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
        app.env.note_dependency(str(NOTEBOOK))


def setup(app: Any) -> dict[str, Any]:
    """Connect."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
