"""What every way to search asks for, and what of an index is laid out once for all searches."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from autointerp.embedders import EMBEDDERS, Embedder
from autointerp.search.spans import TextRuns
from store.codes import CodeMap
from store.errors import UsageError
from store.feature_index import FeatureIndex

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How to search."""

    n: int = 20
    """Rows found at most."""
    exact: bool = False
    """Text: upper and lower case differ."""
    regex: bool = False
    """Text: the query is a regular expression (RE2), matched within each document."""
    max_matches: int = 10_000
    """Text: of more matches than these a sample is looked at."""
    seed: int = 0
    """Text: of the sample."""
    embedder: str = "minilm"
    """Meaning: a name in `autointerp.embedders.EMBEDDERS`."""
    timeout_s: float = 30.0
    """Text: the search for matches is given up after so long."""

    def __post_init__(self) -> None:
        for name in ("n", "max_matches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} finds nothing: choose {name} >= 1")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s={self.timeout_s:g} leaves no time: choose timeout_s > 0")


class Sources:
    """One index with what searches of it share; safe to use from several threads."""

    def __init__(self, index: FeatureIndex) -> None:
        self.index = index
        self._lock = threading.Lock()
        self._made: dict[str, tuple[str, Any]] = {}
        self._embedders: dict[str, Embedder] = {}

    @cached_property
    def runs(self) -> TextRuns:
        """Where the tokens of any stretch of text are."""
        return TextRuns.of(self.index.tokens)

    @cached_property
    def codes(self) -> CodeMap:
        """Which latents fire on any token."""
        return CodeMap(self.index.folder, self.index.tokens.windows)

    @cached_property
    def density(self) -> np.ndarray:
        """`[n_latents]` float64: share of the tokens that count on which each fires."""
        return self.index.arrow("SELECT density FROM latents ORDER BY latent").column("density").to_numpy()

    def of_version(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returns, made once for each published version."""
        version = self.index.version()
        with self._lock:
            if self._made.get(name, ("", None))[0] != version:
                self._made[name] = (version, make())
            return self._made[name][1]

    def embedder(self, name: str) -> Embedder:
        """An embedder, loaded once.

        Raises:
            UsageError: its model is not at hand.
        """
        with self._lock:
            if name not in self._embedders:
                self._embedders[name] = EMBEDDERS[name]()
            return self._embedders[name]

    def explanations(self, latents: Sequence[int]) -> list[str | None]:
        """The newest explanation of each latent, None where it has none."""
        query = "SELECT latent, explanation FROM features WHERE latent IN (SELECT unnest(?::BIGINT[]))"
        found = {row["latent"]: row["explanation"] for row in self.index.arrow(query, [list(latents)]).to_pylist()}
        return [found[latent] for latent in latents]


def asked_for(query: str, what: str, *, blank: bool = False) -> str:
    """The query, if it can be one; `what` to type instead, and whether spaces alone are something.

    Raises:
        UsageError: it is empty or is no text.
    """
    if not query or (not blank and not query.strip()):
        raise UsageError(f"there is nothing to search for: type {what}")
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the query is no text (character {error.start} has no UTF-8): type it again") from error
    return query
