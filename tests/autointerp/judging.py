"""Trials with a planted truth, for tests of the scorers that ask a judge."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from autointerp.latent import ACTIVE, Explanation, Item, Neighbour, Score, Trial
from autointerp.llm import LLM, Reply, Request
from autointerp.llm.planted import Planted
from autointerp.llm.scripted import Scripted
from autointerp.scorers import SCORERS
from autointerp.tools import Tools, ToolsConfig
from store.latents import Window

FILLER = ("over", "under", "along", "beside", "green", "slow", "bright", "hollow")
DETECTIVES = ("detection", "fuzzing")
JUDGED = (*DETECTIVES, "intruder", "discrimination", "simulation")
"""Scorers that ask a language model."""


def window(word: str, fires: bool, doc_id: int, seed: int = 0) -> Window:
    """Eight tokens, one of them `word`, on which it fires; no two documents read the same."""
    random = np.random.default_rng([seed, doc_id])
    peak = int(random.integers(1, 7))
    tokens = [f"n{seed}x{doc_id}", *(f" {FILLER[i]}" for i in random.integers(len(FILLER), size=7))]
    tokens[peak] = f" {word}"
    values = tuple(float(fires and i == peak) * (1 + doc_id % 3) for i in range(len(tokens)))
    ids = tuple(range(len(tokens)))
    return Window("given", values[peak], doc_id, "s", "t", "train", 0, 0, peak, tuple(tokens), ids, values)


def trial(latent: int = 0, n: int = 50, base_rate: float | None = 0.01, n_neighbours: int = 3) -> Trial:
    """`n` contexts with "cat", on which it fires, and `n` with "ship", in a random order; neighbours fire on "dog"."""
    active = [Item(w, ACTIVE, (w.peak,)) for w in (window("cat", True, i, latent) for i in range(n))]
    silent = [Item(w, "random", (w.peak,)) for w in (window("ship", False, 1000 + i, latent) for i in range(n))]
    items = [*active, *silent]
    order = np.random.default_rng(latent).permutation(len(items))
    near = [
        Neighbour(100 + k, 0.9, tuple(window(f"dog{k}", True, 2000 + 10 * k + i, latent) for i in range(4)))
        for k in range(n_neighbours)
    ]
    return Trial(latent, tuple(items[i] for i in order), base_rate, tuple(near), seed=latent)


def explained(word: str, latent: int = 0) -> Explanation:
    text = f"the word “{word}”"
    return Explanation(latent, "given", text, text, "given", None, None)


def tools(llm: LLM, **settings: object) -> Tools:
    made = Tools(replace(ToolsConfig(), **settings))
    made.__dict__["llm"] = llm
    return made


def judge(name: str, llm: LLM, word: str = "cat", given: Trial | None = None, **settings: object) -> Score:
    given = trial() if given is None else given
    return asyncio.run(SCORERS[name](tools(llm, **settings))(explained(word, given.latent), given))


def perfect() -> Scripted:
    return Scripted(Planted(tpr=1.0, fpr=0.0))


class Changing:
    """A perfect judge whose n-th reply is `change`d."""

    def __init__(self, change: Callable[[int, str, Request], str]) -> None:
        self.name, self.change, self.inner = "changing", change, perfect()

    @property
    def requests(self) -> list[Request]:
        return self.inner.requests

    async def complete(self, request: Request) -> Reply:
        reply = await self.inner.complete(request)
        n = len(self.requests)
        return replace(reply, text=self.change(n, reply.text, request), key=f"call{n}")
