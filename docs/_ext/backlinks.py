"""Links from source pages back to the reference, only where the reference has an object by the name that the link names.

viewcode knows one name for each module; a module whose objects are described partly as the package's and partly as its own
would get links that lead nowhere.
"""

from __future__ import annotations

import re
from typing import Any

LINK = re.compile(r'<a class="viewcode-back" href="[^"#]*#([^"]*)">.*?</a>')


def drop_broken(app: Any, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Leave out links to names that the reference does not have."""
    if page.startswith("_modules/"):
        # Other names of an object are in the inventory too, but have no place on a page.
        described = {entry.node_id for entry in app.env.get_domain("py").objects.values() if not entry.aliased}
        context["body"] = LINK.sub(lambda link: link[0] if link[1] in described else "", context["body"])


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", drop_broken)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
