"""``{overview} space trace``: a table of the public names of modules, each with the first sentence of its docstring."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def rows(module_name: str) -> list[tuple[str, str]]:
    """Full name and first sentence of everything public in a module."""
    module = importlib.import_module(f"classspace_widgets.{module_name}")
    own = [n for n, o in vars(module).items() if getattr(o, "__module__", "") == module.__name__]
    found = []
    for name in getattr(module, "__all__", own):
        thing = getattr(module, name)
        if name.startswith("_") or not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        summary = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
        found.append((f"{module.__name__}.{name}", re.split(r"(?<=\.)\s(?=[A-Z])", summary)[0].rstrip(".")))
    return found


class Overview(SphinxDirective):
    """The table."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Write it as reStructuredText, so that names become links as everywhere else."""
        lines = [".. list-table::", "   :widths: 32 68", "   :class: overview", ""]
        for module in self.arguments[0].split():
            for name, summary in rows(module):
                lines += [f"   * - :py:obj:`~{name}`", f"     - {summary}"]
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source="overview"), self.content_offset, holder)
        return holder.children


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("overview", Overview)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
