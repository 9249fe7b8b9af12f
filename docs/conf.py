"""The documentation site: ``sphinx-build -W --keep-going docs build/docs``. Nothing is fetched, now or by a reader."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from classspace_widgets import __version__  # noqa: E402

project = "classspace_widgets"
author = "The classspace-widgets developers"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
    "notebook",
    "gallery",
]
exclude_patterns = ["_ext"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"classspace_widgets {__version__}"
html_static_path = ["_static"]
html_extra_path = ["reports"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
# Relative links alone, so that the built folder works over file:// as well.
html_theme_options = {"navigation_with_keys": True}


def _only_what_is_there(_app, docname, source):  # type: ignore[no-untyped-def]
    """Reports that other tools write into ``docs`` are listed where they are there."""
    if docname == "index":
        lines = source[0].splitlines()
        source[0] = "\n".join(line for line in lines if "*" not in line or " " in line or any(HERE.glob(f"{line}.md")))


def setup(app):  # type: ignore[no-untyped-def]
    """Connect."""
    app.connect("source-read", _only_what_is_there)
