"""What the pages ask of the whole dictionary, each question answered once for every published version."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from app.feature_table import FeatureTable, Filters, NotesOf, notes_of
from app.figures_map import MAPS, Points
from app.generator.plain_search import found as plain_found
from app.web.state import worker
from app.workbench import Workbench
from store.feature_index import FeatureIndex
from store.notes import Notes

MOST_FOUND = 500
"""Latents that a search finds at most."""


@dataclass(frozen=True)
class Search:
    """A query, and where to look for it."""

    query: str
    by: str
    """A name in `autointerp.search.WAYS`."""
    regex: bool = False
    """Of `text`: the query is a regular expression."""
    embedder: str = "minilm"
    """Of `meaning`: who embeds."""

    @property
    def settings(self) -> dict[str, bool | str]:
        """That its way of searching has, as `SearchConfig` names them."""
        return {"text": {"regex": self.regex}, "meaning": {"embedder": self.embedder}}.get(self.by, {})


def table(bench: Workbench) -> FeatureTable:
    """The latents of the index that is looked at, in the version that the page is of."""
    return FeatureTable(bench.index)


def notes(bench: Workbench) -> Notes:
    """What people wrote, beside the runs."""
    return Notes(bench.run.root)


def noted(bench: Workbench) -> NotesOf:
    """What is noted of the dictionary that is looked at, as it is now."""
    return notes_of(notes(bench), bench.dictionary)


def passing(bench: Workbench, filters: Filters, noted: NotesOf, order: str) -> np.ndarray:
    """The latents that pass, in order.

    Raises:
        UsageError: as `FeatureTable.passing`.
    """
    asked = table(bench)
    return _passing(asked, bench.index.folder.as_posix(), asked.version(), filters, noted, order)


@st.cache_data(show_spinner=False, max_entries=64)
def _passing(
    _table: FeatureTable, folder: str, version: str, filters: Filters, noted: NotesOf, order: str
) -> np.ndarray:
    del folder, version  # what the answer depends on
    return _table.passing(filters, noted, order)


def searched(bench: Workbench, search: Search) -> pd.DataFrame:
    """What a search found, best first, each latent once; `attrs["note"]` says what was looked at.

    Raises:
        UsageError: as `Workbench.search`.
    """
    found, note = _searched(bench, bench.index.folder.as_posix(), bench.index.version(), search)
    found.attrs["note"] = note
    return found


@st.cache_data(show_spinner="Searching …", max_entries=32)
def _searched(_bench: Workbench, folder: str, version: str, search: Search) -> tuple[pd.DataFrame, str]:
    del folder, version
    asked = {"query": search.query, "by": search.by, "n": MOST_FOUND, **search.settings}
    # An embedder is a model too: none runs in this process.
    by_model = search.by == "meaning"
    found = worker().ask("search", plain_found, **asked).result() if by_model else _bench.search(**asked)
    # Attributes of a frame are lost where it is cached.
    return found.drop_duplicates("latent").reset_index(drop=True), found.attrs["note"]


def points(bench: Workbench, name: str) -> Points:
    """Where all latents lie on a map."""
    return _points(bench.index, bench.index.folder.as_posix(), bench.index.version(), name)


@st.cache_data(show_spinner=False, max_entries=8)
def _points(_index: FeatureIndex, folder: str, version: str, name: str) -> Points:
    del folder, version
    return MAPS[name].place(_index.sql(MAPS[name].query))
