"""The nulls that every score stands beside: what a scorer gives to words that know nothing of the latent, or little."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autointerp.explain.tokens import peak_words
from autointerp.latent import Explanation
from autointerp.sample import Sampler

EXPLANATION, SHUFFLED, RANDOM = "explanation", "shuffled", "random"
GENERIC_TEXT = "common words and phrases of many kinds, in everyday text"
N_WORDS = 5
"""Most words that the `unigram` null names."""


@dataclass(frozen=True)
class Known:
    """What a null may be made from."""

    explanations: Sequence[Explanation]
    others: Sequence[int | None]
    """For each, whose explanation is its shuffled one; None where there is no other."""
    sampler: Sampler


def _own(known: Known, i: int) -> Explanation:
    return known.explanations[i]


def _shuffled(known: Known, i: int) -> Explanation | None:
    other = known.others[i]
    return None if other is None else known.explanations[other]


def _generic(known: Known, i: int) -> Explanation:
    return _saying(known.explanations[i], GENERIC_TEXT)


def _empty(known: Known, i: int) -> Explanation:
    return _saying(known.explanations[i], "")


def _unigram(known: Known, i: int) -> Explanation:
    """The commonest words at the peaks of the contexts that explainers may see: no more than counting."""
    latent = known.explanations[i].latent
    windows = known.sampler.evidence(latent, frozenset({"windows"})).windows
    words = ", ".join(f"“{word}”" for word in peak_words(windows, N_WORDS))
    said = replace(_saying(known.explanations[i], words), doc_ids=frozenset(window.doc_id for window in windows))
    return said


def _saying(explanation: Explanation, text: str) -> Explanation:
    """Of the same latent, in other words that nobody saw a document for."""
    return replace(explanation, text=text, input_text=text, output_text=text, doc_ids=frozenset())


ARMS: dict[str, Callable[[Known, int], Explanation | None]] = {
    EXPLANATION: _own,
    SHUFFLED: _shuffled,
    "generic": _generic,
    "empty": _empty,
    "unigram": _unigram,
}
"""What is judged on a latent's own contexts, by arm; None where there is nothing to judge. `random` is not here: its
contexts are another's too."""
NULLS = (*(arm for arm in ARMS if arm != EXPLANATION), RANDOM)


def derangement(n: int, seed: int, groups: Sequence[int] | None = None) -> list[int | None]:
    """A seeded permutation without a fixed point (Sattolo 1986: one cycle); None when n < 2, where there is none.

    With `groups`, one of each, nothing is moved within a group; None for those of a group of more than half of all that
    have nowhere to go.
    """
    if groups is not None and len(set(groups)) < n:
        return _between(groups, seed)
    if n < 2:
        return [None] * n
    random = np.random.default_rng(seed)
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = int(random.integers(0, i))
        order[i], order[j] = order[j], order[i]
    return list(order)


def _between(groups: Sequence[int], seed: int) -> list[int | None]:
    """Groups end to end in a random order, turned by the size of the largest: all of a group then lie past its end."""
    n, sizes = len(groups), Counter(groups)
    place = {group: i for i, group in enumerate(np.random.default_rng(seed).permutation(sorted(sizes)).tolist())}
    order = sorted(range(n), key=lambda i: (place[groups[i]], i))
    turned = order[max(sizes.values()) :] + order[: max(sizes.values())]
    found: list[int | None] = [None] * n
    for here, there in zip(order, turned, strict=True):
        found[here] = None if groups[here] == groups[there] else there
    return found
