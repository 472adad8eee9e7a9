"""Makes delphi's scorers importable without what they do not use: its clients, vLLM, FAISS, an async helper, plots.

Import this before any module of delphi's. Its packages' `__init__`s are left out, and so is every optional library;
the modules that are used are delphi's own, unchanged.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def stand_in(name: str, **members: Any) -> None:
    """An empty module, or a package of delphi's without what its `__init__` imports."""
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


def package(name: str) -> None:
    """A package of delphi's whose modules can be imported, though its `__init__` cannot."""
    spec = find_spec("delphi")
    assert isinstance(spec, ModuleSpec)
    assert spec.submodule_search_locations is not None
    below = name.split(".")[1:]
    stand_in(name, __path__=["/".join([each, *below]) for each in spec.submodule_search_locations])


for missing in ("blobfile", "orjson"):
    stand_in(missing)
for each in ("clients", "latents", "scorers", "scorers.classifier"):
    package(f"delphi.{each}")

from delphi.latents import latents  # noqa: E402 - after what it imports is there

vars(sys.modules["delphi.latents"]).update(vars(latents))
