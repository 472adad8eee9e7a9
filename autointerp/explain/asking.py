"""What every explainer that asks a language model does: put the evidence, read the reply, ask once more, or give up."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from autointerp.explain.reading import read_parts
from autointerp.latent import Evidence, Explanation, Unexplained
from autointerp.leakage import quoted
from autointerp.llm import LLM, Message, Reply, Request
from autointerp.llm.errors import TooLong
from autointerp.llm.excused import REFUSED
from autointerp.prompts import Prompt
from autointerp.tools import Tools
from store.errors import UsageError
from store.latents import Window

NO_EVIDENCE, CUT_OFF, UNREADABLE = "no evidence", "cut off", "unreadable"
"""Why a latent has no explanation."""
REASONS = {"length": CUT_OFF, REFUSED: "refused by the service"}
"""By how the last reply ended; others are unreadable."""


@dataclass(frozen=True)
class Material:
    """Evidence as a prompt shows it."""

    fields: Mapping[str, str]
    """Of the prompt's template."""
    windows: tuple[Window, ...]
    """Contexts that are shown, or from which what is shown was computed."""
    n_shown: int
    """Contexts of which text is shown."""
    note: str = ""
    """What was wanted and not there, for the reader."""


class Words(NamedTuple):
    """The texts of an explanation, as it has them."""

    text: str
    input_text: str
    output_text: str = ""


@dataclass(frozen=True)
class Said:
    """The parts of a reply, and the keys of all replies that it took."""

    parts: Mapping[str, str] | None
    """By name; None where no reply could be read."""
    calls: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Asking(ABC):
    """An explainer that asks a language model once, and a second time where the reply cannot be read."""

    name: ClassVar[str]
    """In `EXPLAINERS`."""
    wants: ClassVar[frozenset[str]]
    prompt: ClassVar[Prompt]
    parts: ClassVar[tuple[str, ...]] = ("explanation",)
    """Texts that the reply must have, by name."""

    llm: LLM
    seed: int = 0
    """Of the model's sampling."""
    temperature: float = 0.0
    max_tokens: int = 200
    """Of the reply; twice as many where the first was cut off."""

    @classmethod
    def open(cls, tools: Tools) -> "Asking":
        """With the language model of `tools`."""
        return cls(llm=tools.llm)

    @abstractmethod
    def material(self, evidence: Evidence) -> Material | None:
        """What the model is shown; None where the evidence has nothing of it."""

    def words(self, parts: Mapping[str, str]) -> Words:
        """What the parts of the reply say."""
        return Words(parts["explanation"], parts["explanation"])

    def drawn(self, seed: int, temperature: float) -> "Asking":
        """The same explainer with other luck."""
        return replace(self, seed=seed, temperature=temperature)

    async def __call__(self, evidence: Evidence) -> Explanation | Unexplained:
        """The model's words, or why there are none."""
        material = self.material(evidence)
        if material is None:
            return Unexplained(evidence.latent, self.name, NO_EVIDENCE)
        said = await self._ask(material)
        if said.parts is None:
            return Unexplained(evidence.latent, self.name, said.reason, said.calls)
        words = self.words(said.parts)
        return Explanation(
            latent=evidence.latent,
            explainer=self.name,
            text=words.text,
            input_text=words.input_text,
            output_text=words.output_text,
            method="; ".join(part for part in (self.llm.name, material.note) if part),
            n_contexts=material.n_shown,
            doc_ids=frozenset(window.doc_id for window in material.windows),
            prompt=self.prompt.tag,
            calls=said.calls,
            quoted=quoted(words.text, material.windows),
        )

    async def _ask(self, material: Material) -> Said:
        request = replace(
            self.prompt.request(max_tokens=self.max_tokens, schema=schema_of(self.parts), **material.fields),
            seed=self.seed,
            temperature=self.temperature,
        )
        first = await self._complete(request, material)
        if (parts := read_parts(first.text, self.parts)) is not None:
            return Said(parts, _keys(first))
        second = await self._complete(_stricter(request, first, self.parts), material)
        if (parts := read_parts(second.text, self.parts)) is not None:
            return Said(parts, _keys(first, second))
        return Said(None, _keys(first, second), REASONS.get(second.finish, UNREADABLE))

    async def _complete(self, request: Request, material: Material) -> Reply:
        try:
            return await self.llm.complete(request)
        except TooLong as error:
            raise UsageError(_too_long(error, self.llm.name, material.n_shown)) from error


def _too_long(error: TooLong, name: str, n_shown: int) -> str:
    """What does not fit, and how many contexts would: they are nearly all of the prompt."""
    way_out = "choose a model with a larger context window, or smaller contexts with --half-window"
    if not error.n_tokens or not error.limit or n_shown < 2:
        return f"{n_shown} contexts do not fit the context window of {name} ({error}): {way_out}"
    sizes = f"{n_shown} contexts take {error.n_tokens} tokens and {name} reads {error.limit}"
    n_fit = min(n_shown * error.limit // error.n_tokens, n_shown - 1)
    return f"{sizes}: about {n_fit} fit; pass --n-explain {n_fit}" if n_fit else f"{sizes}: not one fits; {way_out}"


def _keys(*replies: Reply) -> tuple[str, ...]:
    return tuple(reply.key for reply in replies if reply.key is not None)


def _stricter(request: Request, reply: Reply, parts: Sequence[str]) -> Request:
    """The same question, which says what was wrong. The reply is left out: its words would be copied."""
    shape = ", ".join(f'"{part}": "…"' for part in parts)
    said = f"The whole reply must be one line of JSON, {{{shape}}}: no other word before or after it."
    *before, last = request.messages
    longer = 2 if reply.finish == "length" else 1
    messages = (*before, Message(last.role, f"{last.text}\n\n{said}"))
    return replace(request, messages=messages, max_tokens=longer * request.max_tokens)


def schema_of(parts: Sequence[str]) -> str:
    """JSON Schema of an object that has a text for each of `parts`."""
    properties = {part: {"type": "string"} for part in parts}
    closed = {"type": "object", "properties": properties, "required": list(parts), "additionalProperties": False}
    return json.dumps(closed)
