"""A backend that answers from a script: the judge of known errors for tests and dry runs; it opens no connection."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from autointerp.llm import Reply, Request
from autointerp.llm.planted import Planted


@final
@dataclass
class Scripted:
    """Answers with `answer(request)`, by default a judge with known rates, and remembers what it was asked."""

    answer: Callable[[Request], str] = field(default_factory=Planted)
    requests: list[Request] = field(default_factory=list)
    name: str = "scripted"

    async def complete(self, request: Request) -> Reply:
        """The scripted answer; tokens are counted as words."""
        self.requests.append(request)
        text = self.answer(request)
        n_tokens_in = sum(len(message.text.split()) for message in request.messages)
        return Reply(text=text, n_tokens_in=n_tokens_in, n_tokens_out=len(text.split()))
