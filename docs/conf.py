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
    "backlinks",
    "mathml",
    "notebook",
    "gallery",
    "overview",
    "sphinx_copybutton",
]
exclude_patterns = ["_ext"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_html_meta = {
    "description": "Watch a vision transformer make up its mind: every intermediate representation of a timm ViT, read "
    "through the model's own classifier and explored live in a notebook (Vilas et al., NeurIPS 2023).",
    "property=og:title": "classspace_widgets",
    "property=og:description": "Watch a vision transformer make up its mind, live in Jupyter.",
    "keywords": "vision transformer, interpretability, logit lens, class embedding space, Jupyter widget, timm",
}
html_math_renderer = "mathml"
copybutton_prompt_text = ">>> |\\.\\.\\. |\\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = (
    ".highlight-python pre, .highlight-bash pre, .highlight-bibtex pre, .doctest pre, .highlight-default pre"
)

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
pygments_dark_style = "github-dark"
html_title = f"classspace_widgets {__version__}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_extra_path = ["reports"]
html_css_files = ["site.css"]
html_js_files = ["frames.js"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
# Relative links alone, so that the built folder works over file:// as well.
html_theme_options = {"navigation_with_keys": True}
