"""A backend that answers from a script: the judge of known errors for tests and dry runs; it opens no connection."""

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import final

from autointerp.llm import Reply, Request
from autointerp.llm.planted import Planted


@final
@dataclass
class Scripted:
    """Answers with `answer(request)`, by default a judge with known rates; remembers what it was asked if it is to."""

    answer: Callable[[Request], str] = field(default_factory=Planted)
    requests: list[Request] = field(default_factory=list)
    remembers: bool = True
    """Whether `requests` fills; the prompts of a long job are too many to keep."""
    name: str = ""
    """Empty for one that tells what it answers with, so that two judges never read each other's kept replies."""

    def __post_init__(self) -> None:
        self.name = self.name or _name(self.answer)

    async def complete(self, request: Request) -> Reply:
        """The scripted answer; tokens are counted as words."""
        if self.remembers:
            self.requests.append(request)
        text = self.answer(request)
        n_tokens_in = sum(len(message.text.split()) for message in request.messages)
        return Reply(text=text, n_tokens_in=n_tokens_in, n_tokens_out=len(text.split()))


def _name(answer: Callable[[Request], str]) -> str:
    if not isinstance(answer, Planted):
        # Nothing says whether two functions answer alike.
        return f"scripted:{uuid.uuid4().hex[:12]}"
    default = asdict(Planted())
    told = ",".join(f"{name}={value:g}" for name, value in asdict(answer).items() if value != default[name])
    return f"scripted:{told}" if told else "scripted"
