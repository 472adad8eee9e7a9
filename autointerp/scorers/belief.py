"""How sure a judge is of each yes or no: from the log-probabilities of the alternatives in its place."""

import re
from collections.abc import Collection, Iterator, Mapping
from math import exp

from autointerp.llm import Reply, TokenLogprob
from autointerp.parse import yes_or_no


def beliefs(reply: Reply, answers: Mapping[str, float]) -> dict[str, float]:
    """P(yes) of each of the answers read from `reply`, among yes and no; none where the service told no alternatives.
    Where the reply says the opposite of the answer that was read, as in a quotation, it is no belief in it."""
    if not reply.logprobs:
        return {}
    found: dict[str, float] = {}
    said = ""
    for token in reply.logprobs:
        name = _asks(said, answers)
        if name is not None and _agrees(token, answers[name]) and (belief := _belief(token)) is not None:
            found[name] = belief
        said += token.token
    return found


def _asks(said: str, names: Collection[str]) -> str | None:
    """The name whose answer comes next."""
    found = re.search(r"""["']?(\d+)["']?\s*:\s*["']?$""", said[-40:])
    return found[1] if found and found[1] in names else None


def _agrees(token: TokenLogprob, answer: float) -> bool:
    return _meaning(token.token) in (None, answer)


def _belief(token: TokenLogprob) -> float | None:
    shares = [(answer, exp(logprob)) for answer, logprob in _answers(token)]
    total = sum(share for _, share in shares)
    return sum(share for answer, share in shares if answer) / total if total else None


def _answers(token: TokenLogprob) -> Iterator[tuple[float, float]]:
    for text, logprob in ({token.token: token.logprob} | dict(token.top)).items():
        if (answer := _meaning(text)) is not None:
            yield answer, logprob


def _meaning(text: str) -> float | None:
    return yes_or_no(text.strip(" \"'"))
