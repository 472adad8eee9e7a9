"""docs/api.md is what the code has: every public name, with the arguments that a call takes."""

import importlib
import inspect
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from bench.api import reference

MODULES = ("app.notebook", "app.notebook_steering", "app.workbench")
PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")


def public(module: str) -> dict[str, Any]:
    """Everything public that is defined in a module, by its dotted name there."""
    found: dict[str, Any] = {}
    for name, thing in vars(importlib.import_module(module)).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module:
            continue
        found[name] = thing
        if inspect.isclass(thing):
            kinds = (property, cached_property, classmethod, staticmethod)
            members = {n: v for n, v in vars(thing).items() if inspect.isfunction(v) or isinstance(v, kinds)}
            found |= {f"{name}.{n}": v for n, v in members.items() if not n.startswith("_")}
    return found


EVERYTHING = [(module, name) for module in MODULES for name in public(module)]


@pytest.mark.parametrize(("module", "name"), EVERYTHING, ids=lambda each: each)
def test_every_public_name_is_in_the_reference_with_its_arguments(module: str, name: str):
    thing = inspect.unwrap(getattr(public(module)[name], "__func__", public(module)[name]))
    assert re.search(rf"^###?#? {re.escape(name)}$", PAGE, re.MULTILINE)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        section = PAGE.split(f"\n#### {name}\n")[1].split("\n#")[0]
        signature, described = section.split("```")[1:3]
        takes = [each.name for each in inspect.signature(thing).parameters.values() if each.name not in ("self", "cls")]
        assert re.findall(r"(?:[(,*]|\n)\s*(\w+)(?:: |=)", signature.partition(" -> ")[0]) == takes
        said = re.findall(r"^- `(\w+)`: ", described, re.MULTILINE)
        assert said in ([], takes), "either every argument is described or none"


def test_every_field_says_what_it_is():
    for module in MODULES:
        for line in re.findall(r"^- `.*$", reference(module), re.MULTILINE):
            assert ": " in line.split("`", 2)[2], line


def test_what_raises_says_so():
    for name in ("open_workbench", "NotebookWorkbench.features", "NotebookWorkbench.sql", "InspectedText.top"):
        assert "- Raises `UsageError`: " in PAGE.split(f"\n#### {name}\n")[1].split("\n#")[0], name


def test_private_names_stay_out():
    assert not re.search(r"^#+ (?:\w+\.)?_", PAGE, re.MULTILINE)
