"""Every public name is in the built reference, and its docstring has the sections that readers look for.

``python check_reference.py build/docs``. numpydoc's validation checks docstrings, with the rules listed below. A function
describes its parameters and what it returns, with an example; a class that people make has parameters and an example; a class
that functions return describes its attributes and says what makes it. Returned classes must be in the reference too, although
packages do not list them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import classspace_widgets

# Documented beside the modules that the package itself names.
BESIDE = ("capture", "images", "models.convert", "snapshot.atlas", "snapshot.filmstrip")
ALWAYS = {"GL03", "GL07", "GL08", "GL09", "SS01", "SS02", "SS04", "PR10"}
INTERNAL = {"__main__", "cli", "training"}
SUBCLASSES = {"Study", "View", "AnyWidget", "Exception", "Protocol"}


def public() -> Iterator[tuple[str, Any, bool]]:
    """Full name and object of everything public, and whether it is a method."""
    for name in (*classspace_widgets._MODULES, *BESIDE):
        module = importlib.import_module(f"classspace_widgets.{name}")
        own = [n for n, o in vars(module).items() if getattr(o, "__module__", "") == module.__name__]
        for each in getattr(module, "__all__", own):
            thing = getattr(module, each)
            if each.startswith("_") or not (inspect.isclass(thing) or inspect.isroutine(thing)):
                continue
            yield f"{module.__name__}.{each}", thing, False
            for method, function in vars(thing).items() if inspect.isclass(thing) else ():
                made = inspect.isfunction(function) or isinstance(function, (classmethod, staticmethod, property))
                if made and not method.startswith("_"):
                    yield f"{module.__name__}.{each}.{method}", function, True


def returned() -> Iterator[str]:
    """Full names of the classes that functions return."""
    for found in pkgutil.walk_packages(classspace_widgets.__path__, "classspace_widgets."):
        if found.name.split(".")[1] in INTERNAL:
            continue
        module = importlib.import_module(found.name)
        for name, thing in vars(module).items():
            own = inspect.isclass(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
            if own and "Made by `" in (thing.__doc__ or ""):
                yield f"{module.__name__}.{name}"


def described(site: Path) -> set[str]:
    """Names in the inventory of a built site."""
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ")[0] for line in lines if " py:" in line}


def lacking(path: str, thing: Any, method: bool) -> list[str]:
    """What a docstring lacks, in words."""
    errors = validate(path)["errors"]
    problems = [text for code, text in errors if code in ALWAYS]
    if method:
        return problems + [text for code, text in errors if code == "PR02"]
    document = Validator(get_doc_object(thing))
    handed = "Made by `" in document.raw_doc or "Part of a `" in document.raw_doc
    if inspect.isclass(thing):
        subclass = bool(SUBCLASSES & {base.__name__ for base in thing.__mro__[1:]})
        if not subclass and not (document.doc["Attributes"] or document.doc["Parameters"]) and not handed:
            problems.append("No Parameters or Attributes section")
        if not (subclass or handed or inspect.isabstract(thing) or document.examples):
            problems.append("No example, and not said what makes it")
        return problems
    problems += [text for code, text in errors if code in ("PR01", "PR02", "PR03", "EX01")]
    if not (document.doc["Returns"] or document.doc["Yields"]):
        problems.append("No Returns or Yields section")
    return problems


def check(site: Path) -> tuple[int, list[str]]:
    """How many names there are, and what is wrong, in words."""
    known, problems, count = described(site), [], 0
    for path, thing, method in public():
        count += 1
        if path not in known:
            problems.append(f"{path}: not in the reference")
        problems += [f"{path}: {text}" for text in lacking(path, thing, method)]
    for path in returned():
        if not any(name.endswith(f".{path.rsplit('.', 1)[1]}") for name in known):
            problems.append(f"{path}: not in the reference")
    return count, problems


if __name__ == "__main__":
    number, found = check(Path(sys.argv[1]))
    if found or not number:
        sys.exit("\n".join(found) or "there is no public name")
    print(f"{number} public names: all in the reference, none without its sections")
