"""What is measured of texts and of what a model says next; each defined once."""

from collections.abc import Sequence

import numpy as np

from activations.tokenizer import Tokenizer
from store.errors import UsageError


def first_ids(tokenizer: Tokenizer, words: Sequence[str]) -> list[int]:
    """Ids of the tokens that begin the words, each as the first of a text and after a space; ascending.

    Raises:
        UsageError: a word that has no token.
    """
    found = set()
    for form in (form for word in words for form in (word, f" {word}")):
        # Where a space is a token of its own, what follows it begins the word.
        own = next((i for i in tokenizer.encode(form).ids if tokenizer.decode([i]).strip()), None)
        if own is None:
            raise UsageError(f"the word '{form.strip()}' has no token: give words with letters")
        found.add(own)
    return sorted(found)


def in_part(tokenizer: Tokenizer, words: Sequence[str]) -> list[str]:
    """Words of several tokens: what begins them may begin others too, so that their probability is an upper bound."""
    return [word for word in words if all(len(tokenizer.encode(form).ids) > 1 for form in (word, f" {word}"))]


def mass(logprobs: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """`[n]` probability that the next token is one of `ids`, of `[n, d_vocab]` log-probabilities."""
    return np.exp(logprobs[:, list(ids)]).sum(axis=1)


def distinct(ids: Sequence[int], n: int) -> float | None:
    """Different n-grams as a share of all (Li et al. 2016, arXiv:1510.03055); None where there is none."""
    grams = list(zip(*(ids[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def repetition(ids: Sequence[int], window: int = 16) -> float | None:
    """Share of tokens that stand among the `window` before them (Welleck et al. 2019, arXiv:1908.04319: rep/l)."""
    if len(ids) < 2:
        return None
    return float(np.mean([ids[i] in ids[max(0, i - window) : i] for i in range(1, len(ids))]))


def share_of(ids: Sequence[int], of: Sequence[int]) -> float | None:
    """Share of written tokens that begin a word of the concept; None where nothing was written."""
    return float(np.isin(ids, list(of)).mean()) if len(ids) else None
