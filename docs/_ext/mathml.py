"""Formulas as MathML, made while the site is built: a reader's browser draws them without a script or a font of ours."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    # What stands apart on a wide screen stands below one another on a narrow one.
    parts = [convert(part, display="block") for part in node.astext().split(r"\qquad")]
    writer.body.append(f'<div class="formula">{"".join(parts)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
