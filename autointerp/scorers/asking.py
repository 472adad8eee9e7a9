"""What every scorer that asks a language model does: pack questions, ask, read, ask once more, count what is left."""

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autointerp.latent import Judged
from autointerp.llm import LLM, Message, Reply, Request
from autointerp.llm.errors import TooLong
from autointerp.parse import Read, read_answers
from autointerp.prompts import Prompt
from autointerp.prompts.judging import STRICT
from autointerp.scorers.belief import beliefs
from store.errors import UsageError
from store.latents import Window

TOKENS_PER_ANSWER = 8
"""Of a reply, for `"12": false, ` with room to spare."""
PROSE = 64
"""Tokens of a reply for what some models cannot help saying first."""


@dataclass(frozen=True)
class Question:
    """One thing that is asked."""

    text: str
    """As the prompt shows it."""
    kind: str
    truth: float
    window: Window | None = None
    token: int | None = None
    """Of the window, where it is about one."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How questions of a kind are answered."""

    prompt: Prompt
    read: Read
    schema: Mapping[str, Any]
    """JSON Schema of one answer."""
    n_packed: int = 25
    """Most questions of one prompt."""
    top_logprobs: int = 0
    """Alternatives asked for, from which the judge's belief in yes is computed; 0 for none."""
    n_contexts: int = 1
    """Contexts that one question shows; 0 where all of a prompt's questions are about the same one."""


async def ask(llm: LLM, form: Form, questions: Sequence[Question], **fields: str) -> list[Judged]:
    """Every question's answer, in order: in as few prompts as `n_packed` allows, all under way at once; no prompt where
    there is no question.

    Raises:
        UsageError: a prompt does not fit the model's context window.
    """
    parts = await asyncio.gather(*(_ask_part(llm, form, part, fields) for part in packed(questions, form.n_packed)))
    return [judged for part in parts for judged in part]


def packed(questions: Sequence[Question], most: int) -> list[Sequence[Question]]:
    """In order, in as few parts of at most `most` as there can be, of sizes as equal as can be."""
    n_parts = -(-len(questions) // most)
    ends = [len(questions) * i // n_parts for i in range(n_parts + 1)] if n_parts else []
    return [questions[a:b] for a, b in itertools.pairwise(ends)]


async def _ask_part(llm: LLM, form: Form, part: Sequence[Question], fields: Mapping[str, str]) -> list[Judged]:
    numbered = {str(i): question for i, question in enumerate(part, start=1)}
    first = await _complete(llm, form, request_of(form, numbered, fields), part)
    found = _judged(form, numbered, first, n_asked=1)
    missing = {name: question for name, question in numbered.items() if found[name].answer is None}
    if missing:
        second = await _complete(
            llm, form, stricter(request_of(form, missing, fields), missing), list(missing.values())
        )
        found |= _judged(form, missing, second, n_asked=2)
    return [found[name] for name in numbered]


def request_of(form: Form, numbered: Mapping[str, Question], fields: Mapping[str, str]) -> Request:
    """The prompt of some questions, by number. What is the same for all of a latent's comes first: services remember
    how a prompt begins."""
    items = "\n".join(f"{name}: {question.text}" for name, question in numbered.items())
    request = form.prompt.request(
        max_tokens=PROSE + TOKENS_PER_ANSWER * len(numbered),
        schema=schema_of(form.schema, list(numbered)),
        items=items,
        **fields,
    )
    return replace(request, top_logprobs=form.top_logprobs)


def schema_of(one: Mapping[str, Any], names: Sequence[str]) -> str:
    """JSON Schema of an object that has an answer for each of `names`."""
    properties = dict.fromkeys(names, one)
    closed = {"type": "object", "properties": properties, "required": list(names), "additionalProperties": False}
    return json.dumps(closed)


def stricter(request: Request, numbered: Mapping[str, Question]) -> Request:
    """The same questions, and what their reply must be."""
    *before, last = request.messages
    said = last.text + STRICT.format(ids=", ".join(numbered))
    return replace(request, messages=(*before, Message(last.role, said)))


async def _complete(llm: LLM, form: Form, request: Request, part: Sequence[Question]) -> Reply:
    try:
        return await llm.complete(request)
    except TooLong as error:
        raise UsageError(too_long(error, llm.name, form, request, part)) from error


def too_long(error: TooLong, name: str, form: Form, request: Request, part: Sequence[Question]) -> str:
    """What does not fit, and how many contexts would."""
    n_contexts = len(part) * form.n_contexts or 1
    examples = f"{n_contexts} examples" if n_contexts > 1 else "1 example"
    if not error.n_tokens or not error.limit:
        return f"{examples} do not fit the context window of {name} ({error}): {_way_out(form)}"
    sizes = f"{examples} take {error.n_tokens} tokens and {name} reads {error.limit}"
    n_fit = _fitting(error.n_tokens, error.limit, request, part) * form.n_contexts
    if not n_fit:
        return f"{sizes}: not one fits; choose a model with a larger context window, or smaller contexts"
    return f"{sizes}: about {n_fit} fit; pass --per-prompt {n_fit}"


def _fitting(n_tokens: int, limit: int, request: Request, part: Sequence[Question]) -> int:
    """How many questions fit after what comes before them, whose tokens are taken to be as long as theirs."""
    n_chars = sum(len(message.text) for message in request.messages)
    per_char = (n_tokens - TOKENS_PER_ANSWER * len(part)) / n_chars
    n_asked = sum(len(question.text) for question in part)
    each = per_char * n_asked / len(part) + TOKENS_PER_ANSWER
    before = n_tokens - each * len(part)
    return min(max(int((limit - before) / each), 0), len(part) - 1)


def _way_out(form: Form) -> str:
    if form.n_contexts:
        return "pack fewer into a prompt with --per-prompt"
    return "choose a model with a larger context window, or smaller contexts"


def _judged(form: Form, numbered: Mapping[str, Question], reply: Reply, n_asked: int) -> dict[str, Judged]:
    answers = read_answers(reply.text, list(numbered), form.read)
    believed = beliefs(reply, answers) if form.top_logprobs else {}
    return {
        name: Judged(
            kind=question.kind,
            window=question.window,
            truth=question.truth,
            answer=answers.get(name),
            probability=believed.get(name),
            n_asked=n_asked,
            call=reply.key,
            token=question.token,
        )
        for name, question in numbered.items()
    }
