"""The rules of the house: imports point down through one ordered list of layers, and heavy libraries have one home.

Imports inside functions and for type checking count as well.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "classspace_widgets"

LAYERS = (
    # What everything may use; free of torch, but for images.
    "_version",
    "lookup",
    "points",
    "progress",
    "files",
    "validate",
    "tensor_files",
    "state",
    "masks",
    "describe",
    "certainty",
    "pictures",
    "images",
    # Arrays for display, and the drawn world; free of torch.
    "snapshot",
    "scenes",
    # From a model to readings.
    "lens",
    "models",
    "trace",
    "metrics",
    "data",
    "fitting",
    "space",
    # Questions to a model.
    "interventions",
    "causal",
    "memories",
    "nearest",
    "explain",
    "studies",
    "probing",
    # Display.
    "capture",
    "tours",
    "export",
    "plots",
    "widgets",
    # Entrances.
    "training",
    "cli",
    "__main__",
    "__init__",
)
"""From the bottom to the top: a module may import from its own layer and from those before it."""

EXCEPTIONS = {("trace", "capture")}
"""`Trace.snapshot` asks for what views need, and is where everybody looks for it."""

HOMES = {
    "timm": ("models", "space", "images", "training"),
    "bokeh": ("plots", "export"),
    "anywidget": ("widgets",),
    "ipywidgets": ("widgets",),
}
"""Who may import a heavy library, anywhere in a file."""

WITHOUT_TORCH = ("points", "state", "masks", "pictures", "snapshot", "widgets", "export", "scenes", "tours")


def name_of(module: Path) -> str:
    """``trace.hooks`` of ``classspace_widgets/trace/hooks.py``; a package by its own name."""
    return module.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


MODULES = {name_of(module): module for module in sorted(PACKAGE.rglob("*.py"))}


def layer(name: str) -> str:
    return name.partition(".")[0]


def imports(module: Path) -> set[str]:
    """Full names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own_imports(module: Path) -> set[str]:
    """The package's own modules that a file imports."""
    found = set()
    for name in imports(module):
        if name == "classspace_widgets" or not name.startswith("classspace_widgets."):
            continue
        inside = name.removeprefix("classspace_widgets.")
        while inside and inside not in MODULES:
            inside = inside.rpartition(".")[0]
        found.add(inside or "__init__")
    return found


GRAPH = {name: own_imports(module) for name, module in MODULES.items()}


def test_every_module_has_its_layer():
    assert {layer(name) for name in MODULES} == set(LAYERS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str):
    own = LAYERS.index(layer(name))
    up = [
        other
        for other in GRAPH[name]
        if LAYERS.index(layer(other)) > own and (layer(name), layer(other)) not in EXCEPTIONS
    ]
    assert not up, f"{name} imports {up}, which stand above it"


def test_no_circle_leaves_a_package():
    """Files that import one another in a circle belong to one package."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            now = waiting.pop()
            there = {other for other in GRAPH[now] if (layer(now), layer(other)) not in EXCEPTIONS}
            waiting += there - seen
            seen |= there
        return seen

    all_reached = {name: reached(name) for name in MODULES}
    circles = [
        (a, b) for a, there in all_reached.items() for b in there if a in all_reached[b] and layer(a) != layer(b)
    ]
    assert not circles


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_have_one_home(name: str):
    for library, homes in HOMES.items():
        uses = [used for used in imports(MODULES[name]) if used.partition(".")[0] == library]
        assert not uses or layer(name) in homes, f"{name} imports {uses}; only {homes} may"


def test_what_displays_loads_without_torch():
    code = (
        "import sys, importlib\n"
        "sys.modules.update(torch=None, timm=None, torchvision=None)\n"
        f"for name in {WITHOUT_TORCH!r}: importlib.import_module('classspace_widgets.' + name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, classspace_widgets; dir(classspace_widgets)\n"
        "print(sorted({'torch', 'timm', 'bokeh', 'anywidget', 'pandas', 'ipywidgets'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import classspace_widgets

    for name in classspace_widgets.__all__:
        assert getattr(classspace_widgets, name) is not None
    assert not hasattr(classspace_widgets, "no_such_name")


FRONT_END = ("generated", "core", "engine", "fields", "charts", "views", "")
"""Folders of js/src from the bottom to the top; the last is js/src itself, where the entries are."""


def front_end_graph() -> dict[str, set[str]]:
    """Files of js/src, by their path in it, and the files that each imports, types included."""
    source = ROOT / "js/src"
    files = {file.relative_to(source).as_posix() for file in source.rglob("*.ts")}
    graph = {}
    for name in files:
        targets = re.findall(r'(?:from|import) "(\.[^"]+)"', (source / name).read_text(encoding="utf-8"))
        paths = [(source / name).parent.joinpath(target).resolve().relative_to(source).as_posix() for target in targets]
        graph[name] = {file for path in paths for file in (f"{path}.ts", f"{path}/index.ts") if file in files}
        missing = [path for path in paths if not path.startswith("generated/") and not path.endswith(".css")]
        assert len(graph[name] - {"generated/state.ts", "generated/tables.ts", "generated/tour.ts"}) == len(
            set(missing)
        ), f"{name}: {missing}"
    return graph


def test_the_front_end_has_layers_too():
    """Core knows no field and no view, the engine knows core alone, fields know no view; typing-only imports counted."""

    def place(name: str) -> int:
        return FRONT_END.index(name.partition("/")[0] if "/" in name else "")

    graph = front_end_graph()
    assert len(graph) > 50
    up = [(name, other) for name, others in graph.items() for other in others if place(other) > place(name)]
    assert not up
    # The engine is a file of its own: only the page knows it, by its types.
    shown = ("fields/", "charts/", "views/")
    assert not [name for name, others in graph.items() if name.startswith(shown) and any("engine" in o for o in others)]


def test_no_files_of_the_front_end_import_one_another_in_a_circle():
    TopologicalSorter(front_end_graph()).prepare()  # It raises for a circle, and names it.


NEW_SINCE_3_11 = {
    "typing": {"Self", "Never", "LiteralString", "NotRequired", "Required", "Unpack", "assert_never", "override"},
    "datetime": {"UTC"},
    "enum": {"StrEnum"},
    "contextlib": {"chdir"},
    "asyncio": {"TaskGroup", "timeout", "Runner"},
    "itertools": {"batched"},
    "tomllib": set(),
}
"""What the standard library does not have in Python 3.10, the oldest that is supported; by module, empty for all of it."""


def too_new(tree: ast.AST) -> list[str]:
    """Imports and attributes that Python 3.10 does not have, outside of what is for type checking alone."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module in NEW_SINCE_3_11:
            names = NEW_SINCE_3_11[node.module]
            found += [f"{node.module}.{a.name}" for a in node.names if not names or a.name in names]
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if NEW_SINCE_3_11.get(a.name) == set()]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [ast.unparse(node)] * (node.attr in NEW_SINCE_3_11.get(node.value.id, ()))
        found += too_new(node)
    return found


def test_the_oldest_python_has_everything_that_is_used():
    for name, module in MODULES.items():
        tree = ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 10))
        assert too_new(tree) == [], name


def test_what_the_oldest_python_lacks_is_found():
    code = "import tomllib\nimport datetime\nfrom typing import Self\ndatetime.UTC\nif TYPE_CHECKING:\n    from typing import Never"
    assert too_new(ast.parse(code)) == ["tomllib", "typing.Self", "datetime.UTC"]
