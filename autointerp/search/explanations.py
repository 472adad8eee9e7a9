"""Keyword search over explanations, ranked by BM25 (Robertson & Zaragoza 2009, doi:10.1561/1500000019).

score = Σ_t idf(t) · f (k₁ + 1) / (f + k₁ (1 − b + b · length / mean length)), with f the times that term t is there
and idf(t) = ln(1 + (N − n_t + ½) / (n_t + ½)), where n_t of N texts have it.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from autointerp.search.sources import SearchConfig, Sources, asked_for
from store.errors import UsageError

K1, B = 1.2, 0.75
WORD = re.compile(r"\w+")
TERM = re.compile(r'"([^"]*)"?|(\S+)')
QUERY = """
SELECT e.latent, e.explainer, e.text AS explanation, e.run, f.density, f.score
FROM explanations e JOIN features f USING (latent) ORDER BY e.latent, e.explainer, e.run
"""


class Term(NamedTuple):
    """Words that follow each other."""

    words: tuple[str, ...]
    is_prefix: bool
    """Whether the last of them need only begin so."""


def words_of(text: str) -> list[str]:
    """Its words, without case."""
    return WORD.findall(text.casefold())


def terms(query: str) -> list[Term]:
    """What a query asks for: words, phrases in double quotes, and beginnings of words with `*` after them.

    Raises:
        UsageError: it has no word.
    """
    found = []
    for phrase, word in TERM.findall(query):
        # A word with a hyphen is a phrase of two.
        words = tuple(words_of(phrase or word))
        if words:
            found.append(Term(words, word.endswith("*")))
    if not found:
        raise UsageError(f"'{query}' has no word to search for: type one, or several, or a \"phrase\"")
    return found


class Texts:
    """Texts taken apart for BM25."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = [words_of(text) for text in texts]
        self._counts = [Counter(words) for words in self._words]
        self._mean_length = sum(map(len, self._words)) / max(len(texts), 1)

    def scores(self, asked: Sequence[Term]) -> dict[int, float]:
        """By index of the text, for texts that have every term."""
        times = [self._times(term) for term in asked]
        idf = [math.log(1 + (len(self._words) - len(n) + 0.5) / (len(n) + 0.5)) for n in times]
        everywhere = set(times[0]).intersection(*times[1:])
        return {i: sum(w * self._saturated(n[i], i) for w, n in zip(idf, times, strict=True)) for i in everywhere}

    def _saturated(self, times: int, i: int) -> float:
        length = len(self._words[i]) / self._mean_length
        return times * (K1 + 1) / (times + K1 * (1 - B + B * length))

    def _times(self, term: Term) -> dict[int, int]:
        """How often each text has the term, if it has."""
        if len(term.words) == 1 and not term.is_prefix:
            word = term.words[0]
            return {i: counts[word] for i, counts in enumerate(self._counts) if word in counts}
        found = ((i, _times_in(words, term)) for i, words in enumerate(self._words))
        return {i: n for i, n in found if n}


def _times_in(words: Sequence[str], term: Term) -> int:
    *first, last = term.words
    starts = range(len(words) - len(first))
    return sum(
        words[at : at + len(first)] == first
        and (words[at + len(first)].startswith(last) if term.is_prefix else words[at + len(first)] == last)
        for at in starts
    )


def search_explanations(sources: Sources, query: str, cfg: SearchConfig) -> pd.DataFrame:
    """Explanations that have every word and phrase of `query`, whatever their case: `latent explainer relevance …`.

    Raises:
        UsageError: nothing to search for, or nothing is explained.
    """
    asked = terms(asked_for(query, "some words"))
    frame, texts = sources.of_version("explanations", lambda: _explanations(sources))
    scores = texts.scores(asked)
    best = sorted(scores, key=lambda i: (-scores[i], i))[: cfg.n]
    found = frame.iloc[best].reset_index(drop=True)
    found.insert(2, "relevance", [scores[i] for i in best])
    found.attrs["note"] = f"{len(scores):,} of {len(frame):,} explanations have every word"
    return found


def _explanations(sources: Sources) -> tuple[pd.DataFrame, Texts]:
    frame = explained(sources)
    return frame, Texts(frame["explanation"].tolist())


def explained(sources: Sources) -> pd.DataFrame:
    """All explanations, with their latent's density and score.

    Raises:
        UsageError: there is none.
    """
    frame = sources.index.sql(QUERY)
    if frame.empty:
        raise UsageError(f"no latent of index {sources.index.folder.name} is explained: run `monosem explain` first")
    return frame
