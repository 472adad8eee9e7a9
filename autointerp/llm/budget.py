"""What a call may cost before it is sent, and did cost after: in tokens, and in money where the price is known."""

import math
from dataclasses import dataclass

from autointerp.llm import Reply, Request
from store.ledger import NANO, Cost

OVERHEAD_TOKENS = 16
"""Of a message's role and marks in a chat template; also of the whole prompt."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Dollars per million tokens."""

    usd_in: float | None = None
    """None where it is not known."""
    usd_out: float | None = None

    def nano_usd(self, n_tokens_in: int, n_tokens_out: int) -> int | None:
        """Billionths of a dollar, rounded up; None where the price is not known."""
        if self.usd_in is None or self.usd_out is None:
            return None
        return math.ceil((n_tokens_in * self.usd_in + n_tokens_out * self.usd_out) * (NANO / 1_000_000))


def most(request: Request, price: Price) -> Cost:
    """The most that a request may cost: a token is at least a byte in tokenizers that start from bytes."""
    texts = [message.text for message in request.messages] + [request.schema or ""]
    n_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    n_in = n_bytes + OVERHEAD_TOKENS * (len(request.messages) + 1)
    return Cost(n_tokens_in=n_in, n_tokens_out=request.max_tokens, nano_usd=price.nano_usd(n_in, request.max_tokens))


def actual(reply: Reply, price: Price) -> Cost:
    """What a reply cost: what the service says, else by the price."""
    told = None if reply.usd is None else math.ceil(reply.usd * NANO)
    return Cost(
        n_tokens_in=reply.n_tokens_in,
        n_tokens_out=reply.n_tokens_out,
        n_tokens_cached=reply.n_tokens_cached,
        nano_usd=price.nano_usd(reply.n_tokens_in, reply.n_tokens_out) if told is None else told,
    )
