"""Evidence and scripted replies for tests of explainers."""

import json
from collections.abc import Callable, Sequence

from autointerp.latent import Evidence, Neighbour
from autointerp.llm import Reply, Request
from autointerp.llm.scripted import Scripted
from autointerp.tools import Tools, ToolsConfig
from store.latents import Logit, Window


def window(tokens: str, values: Sequence[float], doc_id: int = 0) -> Window:
    """Of tokens divided by |; the peak is on the highest value."""
    pieces, peak = tuple(tokens.split("|")), max(range(len(values)), key=lambda i: values[i])
    given = tuple(map(float, values))
    return Window("q1", given[peak], doc_id, "s", "t", "train", 0, 0, peak, pieces, tuple(range(len(pieces))), given)


def silent_window(tokens: str, peak: int, doc_id: int) -> Window:
    pieces = tuple(tokens.split("|"))
    zeros = (0.0,) * len(pieces)
    return Window("silent", 0.0, doc_id, "s", "t", "train", 0, 0, peak, pieces, tuple(range(len(pieces))), zeros)


CATS = (
    window("The| black| cat| sat", (0, 3, 10, 0), 1),
    window("a| cat|\n\n| and| a| kit|ten", (0, 6, 0, 0, 0, 2, 3), 2),
    window("one| fat| cat", (0, 1, 4), 3),
)
EVIDENCE = Evidence(
    7,
    CATS,
    promoted=(Logit(1, " purr", 2.0), Logit(2, "meow", 1.0)),
    suppressed=(Logit(3, " bark", -2.0),),
    top=CATS[:2],
    silent=(silent_window("a| cat|alog", 1, 4),),
    neighbours=(Neighbour(9, 0.8, (window("the| dog| ran", (0, 5, 0), 5),)),),
)
NAMED = ("contrastive", "default", "ensemble", "output", "single_token", "top")
"""Explainers that ask a language model."""


def answer(request: Request) -> str:
    """What the request's schema asks for: each part says that it is that part."""
    parts = json.loads(request.schema or "{}").get("required", [])
    return json.dumps({part: f"the {part} of cats" for part in parts})


def scripted(*replies: str) -> Scripted:
    """Says these in turn."""
    left = list(replies)
    return Scripted(lambda request: left.pop(0))


class Keyed:
    """A model whose replies have keys, and an end that can be set."""

    def __init__(self, say: Callable[[Request], str], finish: str = "stop") -> None:
        self.name, self.say, self.finish = "keyed:model", say, finish
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        key = f"call{len(self.requests)}"
        return Reply(text=self.say(request), n_tokens_in=1, n_tokens_out=1, finish=self.finish, key=key)


def tools(llm: object, explanations: str = "") -> Tools:
    """Tools with this language model."""
    made = Tools(ToolsConfig(load=explanations))
    made.__dict__["llm"] = llm
    return made
