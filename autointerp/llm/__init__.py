"""Language-model services behind one method; `BACKENDS` holds import strings, so that no SDK loads until it is used."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from store.errors import UsageError


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt: two that are equal, put to the same model, have the same reply."""

    messages: tuple[Message, ...]
    prompt: str = ""
    """Id, version and hash of the prompt that made the messages."""
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    """Of sampling; two samples of one prompt differ in it."""
    schema: str | None = None
    """JSON Schema, as JSON text, that the reply must satisfy; servers that can are held to it, others are only told."""
    top_logprobs: int = 0
    """Alternatives wanted for each token of the reply, where the service gives them."""

    @classmethod
    def ask(cls, system: str, user: str, **settings: Any) -> "Request":
        """A request of one system and one user message."""
        return cls(messages=(Message("system", system), Message("user", user)), **settings)


@dataclass(frozen=True)
class TokenLogprob:
    """One token of a reply."""

    token: str
    logprob: float
    """Nats."""
    top: Mapping[str, float]
    """The likeliest tokens in its place and their log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back."""

    text: str
    n_tokens_in: int
    n_tokens_out: int
    n_tokens_cached: int = 0
    """Of those in, how many the service read from its own cache of prefixes."""
    finish: str = "stop"
    """Why it ended: `stop`, `length` (cut off), or the service's word."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    usd: float | None = None
    """What the service says it cost."""
    key: str | None = None
    """Of the stored reply; None where replies are not kept."""


@runtime_checkable
class LLM(Protocol):
    """Anything that completes a prompt."""

    name: str
    """Backend and model, as `local:smollm2`: part of a reply's identity."""

    async def complete(self, request: Request) -> Reply:
        """The model's answer."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A model that tells how likely a given text is to it: in process, or a server with log-probs of prompts."""

    name: str

    async def logprobs(self, prefix: str, texts: Sequence[str]) -> list[np.ndarray]:
        """Log-probability, in nats, of each token of each text after `prefix`; the prefix is read once."""
        ...

    async def choices(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """`[n_pieces, n_candidates]` log-probabilities of each one-token candidate right after piece `i` of the running
        text `pieces[0] + pieces[1] + ...`, which is read once.

        Raises:
            UsageError: a candidate is more than one token of this model.
        """
        ...


BACKENDS: dict[str, str] = {
    "anthropic_api": "autointerp.llm.anthropic_api:AnthropicAPI",
    "local": "autointerp.llm.local:Local",
    "anthropic_batch": "autointerp.llm.batch_anthropic:open_batched",
    "openai_batch": "autointerp.llm.batch_openai:open_batched",
    "openai_compatible": "autointerp.llm.openai_compatible:OpenAICompatible",
    "scripted": "autointerp.llm.scripted:Scripted",
}
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
