"""Every link of a built site leads somewhere, and no page fetches anything: ``python check_links.py build/docs``.

Links to other hosts are allowed for people to click (their form is checked, they are not called); scripts, styles,
pictures, fonts and frames must be files of the site.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("object", "data"),
}
STYLE_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """Ids, links and fetched addresses of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("a", "area") and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and "href" in given and given.get("rel") not in ("canonical", "alternate"):
            self.fetched.append(given["href"])
        self.fetched += [given[name] for name in ("src", "data") if (tag, name) in FETCHED and name in given]


def check(root: Path) -> list[str]:
    """What is wrong, in words."""
    pages: dict[Path, Page] = {}
    problems: list[str] = []
    for path in sorted(root.rglob("*.html")):
        page = pages[path.resolve()] = Page()
        page.feed(path.read_text(encoding="utf-8"))
    for path, page in pages.items():
        here = path.relative_to(root.resolve())
        for address in page.fetched:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                problems.append(f"{here}: fetches {address[:90]}")
            else:
                problems += _missing(here, path, address, pages, root)
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https"):
                if not parts.hostname or "." not in parts.hostname:
                    problems.append(f"{here}: not an address: {address}")
            elif parts.scheme not in ("mailto", "data", "javascript"):
                problems += _missing(here, path, address, pages, root)
    for path in sorted(root.rglob("*.css")):
        for found in STYLE_URL.finditer(path.read_text(encoding="utf-8")):
            address = found[1] or found[2]
            if re.match(r"(https?:)?//", address):
                problems.append(f"{path.relative_to(root)}: fetches {address[:90]}")
    return problems


def _missing(here: Path, path: Path, address: str, pages: dict[Path, Page], root: Path) -> list[str]:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return []
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file() or root.resolve() not in target.parents:
        return [f"{here}: no such file: {address}"]
    wanted = unquote(parts.fragment)
    if wanted and target in pages and wanted not in pages[target].ids:
        return [f"{here}: no such place: {address}"]
    return []


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = check(folder)
    count = len(list(folder.rglob("*.html")))
    if found or not count:
        sys.exit("\n".join(found) or f"there is no page in {folder}")
    print(f"{count} pages: every link leads somewhere, and nothing is fetched from elsewhere")
