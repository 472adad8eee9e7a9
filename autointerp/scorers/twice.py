"""Ask, and where the reply cannot be read ask once more with a stricter format; what then cannot be read is counted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from autointerp.llm import LLM, Message, Request

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What was read."""

    value: T | None
    """None: neither reply could be read."""
    n_asked: int
    call: str | None
    """Key of the last reply."""


async def ask_twice(llm: LLM, request: Request, stricter: str, read: Callable[[str], T | None]) -> Answer[T]:
    """The first of two replies that `read` makes something of; the second is asked for with `stricter` added."""
    reply = await llm.complete(request)
    value = read(reply.text)
    if value is not None:
        return Answer(value, 1, reply.key)
    again = (*request.messages, Message("assistant", reply.text), Message("user", stricter))
    reply = await llm.complete(replace(request, messages=again))
    return Answer(read(reply.text), 2, reply.key)
