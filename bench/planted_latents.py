"""Simulated latents of which everything is known, and tools that read explanations of them: no model is run.

Latent i fires on its own word wherever that stands, and is explained as that word. A token is two words: one that is
filler but at the peak, and one that is filler or of another latent of the family, drawn alike everywhere. At the peak
an active context has the latent's word and a silent one a word of no latent. So nothing tells active from silent
contexts, or one token from another, but the latent's own word; the word of another of the family is independent of it.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autointerp.arms import derangement
from autointerp.embedders import HashedEmbedder
from autointerp.latent import ACTIVE, Explanation, Item, Neighbour, Trial
from autointerp.llm.planted import BLOCK, Planted, keywords, n_found
from autointerp.llm.scripted import Scripted
from autointerp.steering import Direction, Steered, Text, TokenChange
from autointerp.tools import Tools, ToolsConfig
from store.latents import Window

N_TOKENS = 12
"""Of a context."""
FILLER = ("over", "under", "along", "beside", "green", "slow", "bright", "hollow")
N_STRANGE = 200
"""Words of no latent that silent contexts have where active ones have the latent's."""
FAMILY = 20
"""Latents whose words stand in one another's contexts."""
N_NEAR, N_NEAR_CONTEXTS = 3, 6
LIKELY, UNLIKELY = -1.0, -5.0
"""Nats of a word that the reader expected, and of another."""
TELLS = re.compile("Shared:|Written:")
"""Before what the reader goes by, in the prompts of `surprisal` and `intervention`."""


def word_of(latent: int) -> str:
    """On which it fires."""
    return f"w{latent}"


def explained(latent: int) -> Explanation:
    """In the one word."""
    text = f"the word “{word_of(latent)}”"
    return Explanation(latent, "given", text, text, "given", None, None)


def trial(latent: int, n_latents: int, n_each: int) -> Trial:
    """`n_each` contexts of either side in a random order, and three latents of other families for neighbours."""
    random = np.random.default_rng([7, latent])
    active = [window(word_of(latent), True, latent, random) for _ in range(n_each)]
    strange = [f"v{i}" for i in random.integers(N_STRANGE, size=n_each)]
    silent = [window(word, False, latent, random) for word in strange]
    items = [Item(each, ACTIVE, (each.peak,)) for each in active]
    items += [Item(each, "random", (each.peak,)) for each in silent]
    near = ((latent + step * FAMILY) % n_latents for step in range(1, N_NEAR + 1))
    neighbours = [
        Neighbour(k, 0.9, tuple(window(word_of(k), True, latent, random) for _ in range(N_NEAR_CONTEXTS))) for k in near
    ]
    return Trial(latent, tuple(items[i] for i in random.permutation(len(items))), None, tuple(neighbours), seed=latent)


def window(word: str, fires: bool, latent: int, random: np.random.Generator) -> Window:
    """A context of `latent`'s family with `word` at its peak and the latent's own word nowhere else."""
    first = latent // FAMILY * FAMILY
    others = first + (latent - first + random.integers(1, FAMILY, size=N_TOKENS)) % FAMILY
    common = random.random(N_TOKENS) < 1 / 2
    filler = [FILLER[i] for i in random.integers(len(FILLER), size=(N_TOKENS, 2)).ravel()]
    firsts, seconds = filler[::2], filler[1::2]
    seconds = [f if c else word_of(o) for f, c, o in zip(seconds, common, others.tolist(), strict=True)]
    peak = int(random.integers(N_TOKENS))
    firsts[peak] = word
    values = tuple(float(fires and i == peak) * float(random.uniform(1, 3)) for i in range(N_TOKENS))
    tokens = tuple(f" {first}-{second}" for first, second in zip(firsts, seconds, strict=True))
    return Window("given", values[peak], 0, "", "", "train", 0, 0, peak, tokens, tuple(range(N_TOKENS)), values)


def shuffled(n_latents: int) -> list[int]:
    """For each latent, another of its family, whose explanation is its null.

    Raises:
        ValueError: the last family is not whole.
    """
    if n_latents % FAMILY:
        raise ValueError(f"n_latents={n_latents} is not made of whole families: take a multiple of {FAMILY}")
    firsts = range(0, n_latents, FAMILY)
    return [first + other for first in firsts for other in derangement(FAMILY, first) if other is not None]


def planted_tools(judge: Planted, n_latents: int) -> Tools:
    """A judge, a reader, an embedder and a model to steer, which read what they are told with the judge's rates."""
    made = Tools(ToolsConfig())
    subject = PlantedSubject(judge, np.arange(n_latents))
    tools = {"llm": Scripted(judge), "reader": PlantedReader(judge), "subject": subject, "embedder": HashedEmbedder()}
    made.__dict__.update(tools)
    return made


def luck(judge: Planted, *of: object) -> float:
    """From 0 to 1, the same for the same question."""
    digest = hashlib.sha256("\0".join((str(judge.seed), *map(str, of))).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


@dataclass(frozen=True)
class PlantedReader:
    """Expects a word that it was told of with probability TPR, and another with FPR."""

    judge: Planted
    name: str = "planted"

    async def logprobs(self, prefix: str, texts: Sequence[str]) -> list[np.ndarray]:
        """`[n_words]` of each text."""
        told = TELLS.split(prefix)[-1]
        return [np.array([self._nats(told, text, i) for i in range(len(text.split()))]) for text in texts]

    def _nats(self, told: str, text: str, i: int) -> float:
        words = text.split()[i].strip("“”").split("-")
        rate = self.judge.tpr if n_found(words, told) else self.judge.fpr
        return LIKELY if luck(self.judge, told, text, i) < rate else UNLIKELY

    async def choices(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """A nine or a zero after each token, of which the description is true or not."""
        description = BLOCK.findall(pieces[0])[0]
        wanted = keywords(description)
        tokens = [piece.rstrip("\t").rpartition("\n")[2] for piece in pieces]
        rates = [self.judge.tpr if n_found(wanted, token) else self.judge.fpr for token in tokens]
        drawn = [luck(self.judge, pieces[0], i, token) for i, token in enumerate(tokens)]
        right = [9 if drew < rate else 0 for drew, rate in zip(drawn, rates, strict=True)]
        return np.log(np.where(np.arange(len(candidates)) == np.array(right)[:, None], 0.91, 0.01))


@dataclass(frozen=True)
class PlantedSubject:
    """A model whose latents fire on their words with probability TPR and on other texts with FPR; steered along one, it
    writes the word with probability TPR."""

    judge: Planted
    alive: np.ndarray

    def peaks(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        """1 where it fires."""
        return self.fires(latent, texts).astype(float)

    def fires(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        """`[n_texts]`."""
        said = [text if isinstance(text, str) else text.text for text in texts]
        rates = [self.judge.tpr if n_found([word_of(latent)], text) else self.judge.fpr for text in said]
        return np.array(
            [luck(self.judge, "fires", latent, text) < rate for text, rate in zip(said, rates, strict=True)]
        )

    def n_tokens(self, texts: Sequence[Text]) -> list[int]:
        """Words."""
        return [len((text if isinstance(text, str) else text.text).split()) for text in texts]

    def cut(self, text: str, n_tokens: int) -> str:
        """The first words."""
        return " ".join(text.split()[:n_tokens])

    def random_direction(self, latent: int, seed: int) -> np.ndarray:
        """Its seed stands for it."""
        del latent
        return np.array([seed], float)

    def steer(
        self,
        direction: Direction | Sequence[Direction],
        prompts: Sequence[Text],
        *,
        strength: float | None = None,
        kl: float | None = None,
        n_tokens: int = 16,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Steered | None]:
        """Filler after each prompt, with the direction's word somewhere in it, or that of another latent."""
        del temperature
        each = [direction] * len(prompts) if isinstance(direction, int | np.ndarray) else direction
        written = (self._written(i, one, strength, n_tokens, seed) for i, one in enumerate(each))
        return [Steered(text, strength or 1.0, kl or 0.0) for text in written]

    def _written(self, i: int, direction: Direction, strength: float | None, n_tokens: int, seed: int) -> str:
        own = word_of(direction) if isinstance(direction, int) else f"v{int(direction[0]) % N_STRANGE}"
        random = np.random.default_rng([seed, i, int(own[1:]), own[0] == "v", strength == 0])
        said = [FILLER[k] for k in random.integers(len(FILLER), size=n_tokens)]
        if strength != 0 and random.random() < self.judge.tpr:
            said[int(random.integers(n_tokens))] = own
        return " " + " ".join(said)

    def token_change(self, latent: int, contexts: Sequence[Text], n: int = 10) -> TokenChange:
        """Not simulated: no scorer asks for it."""
        raise NotImplementedError
