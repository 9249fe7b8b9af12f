"""What a snapshot file needs to be opened, shown and exported: numpy and anywidget, by the rules of Python in a browser.

``python check_bare.py FILE.csnap OUT.html``; with ``--refuse`` first, whatever else is installed is hidden.  In a browser
(Pyodide) there are neither threads nor processes, and some modules of the standard library are missing.
"""

from __future__ import annotations

import importlib.abc
import subprocess
import sys
import threading
from typing import Any

OTHERS = "torch timm PIL bokeh pandas tqdm packaging markdown_it safetensors scipy sklearn matplotlib dask distributed"
NOT_IN_A_BROWSER = "fcntl grp pwd resource syslog termios curses tkinter _posixsubprocess _multiprocessing"


class _Refuse(importlib.abc.MetaPathFinder):
    """Says of these modules that they are not there."""

    def __init__(self, names: str) -> None:
        self.names = set(names.split())

    def find_spec(self, name: str, *_: Any) -> None:
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(path: str, out: str, refuse: bool) -> None:
    import anywidget  # noqa: F401, their own imports may be what they like: browsers have builds of theirs
    import IPython.display

    def no_start(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start a thread or a process here")

    threading.Thread.start = no_start  # type: ignore[method-assign]
    subprocess.Popen.__init__ = no_start  # type: ignore[method-assign]
    for name in NOT_IN_A_BROWSER.split():
        sys.modules.pop(name, None)
    if refuse:
        sys.meta_path.insert(0, _Refuse(f"{OTHERS} {NOT_IN_A_BROWSER}"))

    from classspace_widgets import Explorer, Session, Snapshot, link

    shown: list[Any] = []
    IPython.display.display = lambda data, **_: shown.append(data)
    explorer, other = Explorer.from_file(path), Session(Snapshot.load(path))
    link(explorer, other)
    explorer.session.block = 0
    explorer._ipython_display_()
    live, script, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert "iframe" in script["application/javascript"]
    assert "Identifiability of" in still["text/plain"]
    assert "<img" in explorer.snapshot._repr_html_()
    assert not explorer.session._answers
    print(explorer.to_html(out))
    loaded = {name.split(".")[0] for name in sys.modules} & set(OTHERS.split())
    assert not loaded, f"a snapshot was opened with {sorted(loaded)}"


if __name__ == "__main__":
    arguments = [one for one in sys.argv[1:] if one != "--refuse"]
    main(*arguments, refuse="--refuse" in sys.argv)
