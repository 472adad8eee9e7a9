"""The `tokens` explainer: what a latent fires on, what comes before, what it promotes; counts in words, no LLM."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from autointerp.latent import Evidence, Explanation
from autointerp.tools import Tools
from store.latents import Logit, Window

METHOD = "counts"


@final
@dataclass(frozen=True, kw_only=True)
class TokensExplainer:
    """Counts words at and before the peaks; every number in the text can be recounted from its contexts."""

    wants: ClassVar[frozenset[str]] = frozenset({"windows", "logits"})

    n_named: int = 5
    """Most words named in each part."""
    min_share: float = 0.1
    """A word is named when it makes up this share of the contexts, and at least two of them."""

    @classmethod
    def open(cls, tools: Tools) -> "TokensExplainer":
        """It needs none of the tools."""
        del tools
        return cls()

    async def __call__(self, evidence: Evidence) -> Explanation:
        """The counts of `evidence` in one to three short sentences."""
        windows = evidence.windows
        inputs = [
            _fires_on(windows, self._named(peak_word(window) for window in windows)),
            _comes_after(self._named(_word_before(window) for window in windows), len(windows)),
        ]
        outputs = [_promotes(evidence.promoted[: self.n_named])]
        return Explanation(
            latent=evidence.latent,
            explainer="tokens",
            text=" ".join(part for part in inputs + outputs if part),
            input_text=" ".join(part for part in inputs if part),
            output_text=" ".join(part for part in outputs if part),
            method=METHOD,
            n_contexts=len(windows),
            doc_ids=frozenset(window.doc_id for window in windows),
        )

    def _named(self, words: Iterable[str]) -> list[tuple[str, int]]:
        """Words frequent enough to name, most frequent first, ties in alphabetical order."""
        counts = Counter(words)
        n_words = counts.total()
        counts.pop("", None)
        floor = max(2, self.min_share * n_words)
        frequent = [(word, n) for word, n in counts.items() if n >= floor]
        return sorted(frequent, key=lambda item: (-item[1], item[0]))[: self.n_named]


def _word(text: str) -> str:
    """A word as it is counted: without surrounding space, in lower case; a newline is named."""
    return "newline" if "\n" in text and not text.strip() else text.strip().lower()


def _bounds(tokens: Sequence[str], peak: int) -> tuple[int, int]:
    """First and last token of the word that the token at `peak` is part of: “appl” counts as “applause”.

    Letters and digits join; whitespace and punctuation separate.
    """
    first = last = peak
    while first > 0 and tokens[first][:1].isalnum() and tokens[first - 1][-1:].isalnum():
        first -= 1
    while last + 1 < len(tokens) and tokens[last][-1:].isalnum() and tokens[last + 1][:1].isalnum():
        last += 1
    return first, last


def peak_word(window: Window) -> str:
    """The word at the peak, whole, in lower case."""
    first, last = _bounds(window.tokens, window.peak)
    return _word("".join(window.tokens[first : last + 1]))


def peak_words(windows: Sequence[Window], n: int) -> list[str]:
    """The `n` commonest words at the peaks, ties in alphabetical order."""
    counts = Counter(word for window in windows if (word := peak_word(window)))
    return sorted(counts, key=lambda word: (-counts[word], word))[:n]


def _word_before(window: Window) -> str:
    first, _ = _bounds(window.tokens, window.peak)
    if not first:
        return ""
    before, last = _bounds(window.tokens, first - 1)
    return _word("".join(window.tokens[before : last + 1]))


def _fires_on(windows: Sequence[Window], named: list[tuple[str, int]]) -> str:
    if named:
        covered = sum(n for _, n in named)
        return f"Fires on {_quoted(word for word, _ in named)} ({covered} of {len(windows)} contexts)."
    strongest = dict.fromkeys(peak_word(window) for window in windows)
    varied = [word for word in strongest if word][:4]
    return f"Fires on varied words, such as {_quoted(varied)}." if varied else "Fires on varied words."


def _comes_after(named: list[tuple[str, int]], n_windows: int) -> str:
    if not named:
        return ""
    return f"Comes after {_quoted(word for word, _ in named)} ({sum(n for _, n in named)} of {n_windows})."


def _promotes(promoted: Sequence[Logit]) -> str:
    words = [_word(logit.token) for logit in promoted]
    shown = list(dict.fromkeys(word for word in words if word and "\ufffd" not in word))
    return f"Promotes {_quoted(shown)}." if shown else ""


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"“{word}”" for word in words)
