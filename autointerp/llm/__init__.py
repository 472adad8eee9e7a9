"""Language-model services behind one method; `BACKENDS` holds import strings, so that no SDK loads until it is used."""

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from store.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt."""

    system: str
    user: str
    max_tokens: int = 256
    temperature: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back."""

    text: str
    n_tokens_in: int
    n_tokens_out: int


@runtime_checkable
class LLM(Protocol):
    """Anything that completes a prompt."""

    async def complete(self, request: Request) -> Reply:
        """The model's answer."""
        ...


BACKENDS: dict[str, str] = {"scripted": "autointerp.llm.scripted:Scripted"}
"""`module:class` of every backend by the name used on the command line."""


def open_backend(name: str, **settings: Any) -> LLM:
    """The backend called `name`.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in BACKENDS:
        raise UsageError(f"no LLM backend '{name}': choose one of {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(**settings)
