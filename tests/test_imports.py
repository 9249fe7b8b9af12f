"""The import rule of the design: analysis never imports display, display never imports torch, heavy things are lazy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "classspace_widgets"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Who may import a heavy library, at module level or inside a function.
MAY_IMPORT = {
    "timm": ("models", "space", "images", "scenes", "photos"),
    "bokeh": ("plots", "export", "studies/report"),
    "anywidget": ("widgets",),
    "ipywidgets": ("widgets",),
}
DISPLAY = ("snapshot", "widgets", "still", "filmstrip", "packed", "export")
ANALYSIS = ("models", "space", "images", "trace", "lens", "metrics", "streaming", "memories", "explain")
ANALYSIS += ("interventions", "causal", "probing", "studies")


def place(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").as_posix()


def within(module: Path, places: tuple[str, ...]) -> bool:
    return any(place(module) == p or place(module).startswith(f"{p}/") for p in places)


def imported(module: Path, *, top_only: bool = False) -> set[str]:
    """Full names of the modules imported, type-checking blocks left out."""
    names: set[str] = set()

    def visit(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
            for part in ("body", "orelse", "finalbody", "handlers"):
                inner = getattr(node, part, None)
                if inner and not (top_only and isinstance(node, ast.FunctionDef)):
                    visit(inner)

    visit(ast.parse(module.read_text()).body)
    return names


@pytest.mark.parametrize("module", MODULES, ids=place)
def test_heavy_libraries_have_one_home(module: Path):
    for library, homes in MAY_IMPORT.items():
        uses = [name for name in imported(module) if name.split(".")[0] == library]
        assert not uses or within(module, homes), f"{place(module)} imports {uses}; only {homes} may"


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, DISPLAY)], ids=place)
def test_display_never_imports_torch_or_analysis_at_load(module: Path):
    names = imported(module, top_only=True)
    heavy = [n for n in names if n.split(".")[0] in ("torch", "timm")]
    analysis = [
        n for n in names for a in ANALYSIS if n == f"classspace_widgets.{a}" or n.startswith(f"classspace_widgets.{a}.")
    ]
    assert not heavy, f"{place(module)} imports {heavy}"
    assert not analysis, f"{place(module)} imports {analysis}"


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, ANALYSIS)], ids=place)
def test_analysis_never_imports_display(module: Path):
    names = imported(module)
    display = [n for n in names for d in ("widgets", "export") if n.startswith(f"classspace_widgets.{d}")]
    assert not display, f"{place(module)} imports {display}"


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
