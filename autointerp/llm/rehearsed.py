"""A stand-in for a model in a dry run: nothing is sent, and what would have been is counted."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple, final

from autointerp.llm import Reply, Request
from autointerp.llm.cached import reply_of
from autointerp.llm.planted import Planted
from store.replies import Replies, reply_key

BYTES_PER_TOKEN = 4.0
"""Of English in today's tokenizers; taken where no reply of the model is kept that would tell."""


class Asked(NamedTuple):
    """A request that a job would make."""

    is_kept: bool
    """Whether its reply is kept, so that it would not be sent."""
    n_tokens_in: float
    n_tokens_out: float


@final
@dataclass
class Rehearsed:
    """Answers with the kept reply where there is one, else as the scripted judge does, so that a job goes on.

    Tokens are those of kept replies of the same model: in by the length of the request, out by its prompt.
    """

    name: str
    """Of the model it stands in for: kept replies are found by it."""
    replies: Replies

    def __post_init__(self) -> None:
        self._asked: dict[str, Asked] = {}
        self._bytes_per_token = lru_cache(self.replies.bytes_per_token)
        self._tokens_out = lru_cache(self.replies.tokens_out)

    async def complete(self, request: Request) -> Reply:
        """The kept reply or a scripted one; none is kept."""
        key = reply_key(self.name, request)
        kept = self.replies.get(key)
        reply = Reply(text=Planted()(request), n_tokens_in=0, n_tokens_out=0) if kept is None else reply_of(kept, key)
        if key not in self._asked:
            self._asked[key] = self._counted(request, reply, is_kept=kept is not None)
        return reply

    def asked(self) -> Sequence[Asked]:
        """Different requests since the start, in the order in which they came."""
        return list(self._asked.values())

    def _counted(self, request: Request, reply: Reply, *, is_kept: bool) -> Asked:
        n_bytes = len(json.dumps(asdict(request)))
        n_out = (
            self._tokens_out(self.name, request.prompt) or len(reply.text.encode(errors="replace")) / BYTES_PER_TOKEN
        )
        return Asked(is_kept, n_bytes / (self._bytes_per_token(self.name) or BYTES_PER_TOKEN), n_out)
