"""Which latents have to do with a query: by the text they fire on, by token, by explanation, by its meaning."""

from collections.abc import Callable

import pandas as pd

from autointerp.search.explanations import search_explanations
from autointerp.search.meaning import search_meaning
from autointerp.search.sources import SearchConfig, Sources
from autointerp.search.text import search_text
from autointerp.search.tokens import search_tokens
from store.errors import UsageError
from store.feature_index import FeatureIndex

__all__ = ["WAYS", "SearchConfig", "Searcher", "search"]

WAYS: dict[str, Callable[[Sources, str, SearchConfig], pd.DataFrame]] = {
    "text": search_text,
    "token": search_tokens,
    "explanation": search_explanations,
    "meaning": search_meaning,
}
"""Every way to search, by the name it has on the command line."""


class Searcher:
    """Searches one index again and again; what it lays out for the first search it keeps. Safe to share by threads."""

    def __init__(self, index: FeatureIndex) -> None:
        self._sources = Sources(index)

    def search(self, query: str, by: str = "text", cfg: SearchConfig | None = None) -> pd.DataFrame:
        """What has to do with `query`, best first; `attrs["note"]` says in words what was looked at.

        Raises:
            UsageError: there is no such way, or the query is none.
        """
        if by not in WAYS:
            raise UsageError(f"no search by '{by}': choose one of {', '.join(WAYS)}")
        return WAYS[by](self._sources, query, cfg or SearchConfig())


def search(index: FeatureIndex, query: str, by: str = "text", cfg: SearchConfig | None = None) -> pd.DataFrame:
    """One search; see `Searcher`."""
    return Searcher(index).search(query, by, cfg)
