"""Features: the dictionary as a table, searched, filtered, sorted and paged in SQL; a click opens the feature."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.feature_table import BEST_FIRST, PAGE_SIZE, NotesOf
from app.web.finding import noted, notes, passing, searched, table
from app.web.navigation import go
from app.web.panels.bulk import bulk_bar
from app.web.panels.filters import Asked, filter_bar
from app.web.panels.map import map_panel, within
from app.web.panels.views import views_bar
from app.web.state import workbench
from app.workbench import Workbench

COLUMNS: dict[str, Any] = {
    "latent": st.column_config.NumberColumn("Latent", format="%d", width="small", pinned=True),
    "label": st.column_config.TextColumn("Label", help="What people call it."),
    "explanation": st.column_config.TextColumn("Explanation", width="large"),
    "score": st.column_config.NumberColumn("Score", format="%.2f", help="Empty: not scored, or could not be told."),
    "interval": st.column_config.TextColumn("95% interval"),
    "n_judged": st.column_config.NumberColumn("n", format="%d", help="Examples judged for the score."),
    "chance": st.column_config.NumberColumn("Chance", format="%.2f"),
    "null_score": st.column_config.NumberColumn(
        "Null", format="%.2f", help="Score of another latent's explanation in place of this one's."
    ),
    "promotes": st.column_config.TextColumn("Promotes", help="Tokens whose logits its decoder direction raises most."),
    "density": st.column_config.NumberColumn("Density", format="%.3g"),
    "max": st.column_config.NumberColumn("Max", format="%.3g"),
    "n_docs": st.column_config.NumberColumn("Documents", format="%d"),
    "rating": st.column_config.NumberColumn("Rating", format="%.1f", help="Mean of people's, 1 to 5."),
    # Of what a search found.
    "share": st.column_config.NumberColumn("Share", format="%.3g", help="Of the matches, those on which it fires."),
    "lift": st.column_config.NumberColumn("Lift", format="%.3g", help="Share over what its density lets expect."),
    "bits": st.column_config.NumberColumn("Evidence", format="%.1f bits"),
    "similarity": st.column_config.NumberColumn("Cosine", format="%.3f"),
    "fires": st.column_config.NumberColumn("Fires", format="%.3g", help="Share of the token's uses on which it fires."),
    "n_hits": st.column_config.NumberColumn("Hits", format="%d", help="Matches on which it fires."),
    "relevance": st.column_config.NumberColumn("BM25", format="%.2f"),
    "example": st.column_config.TextColumn("Example", width="large"),
}
# Columns of a search that are shown beside those chosen. (Streamlit would show a docstring here on the page.)
FOUND = ("token", "similarity", "relevance", "bits", "share", "lift", "fires", "n_hits", "example")


def found(bench: Workbench, asked: Asked, notes: NotesOf) -> tuple[np.ndarray, pd.DataFrame | None]:
    """The latents that pass all but the map, in order, and what the search says of them."""
    latents = passing(bench, asked.filters, notes, asked.order or BEST_FIRST)
    if asked.search is None:
        return latents, None
    rows = searched(bench, asked.search)
    st.caption(f"Search by {asked.search.by}: {rows.attrs['note']}.")
    hits = rows["latent"].to_numpy()
    in_order = hits[np.isin(hits, latents)] if asked.order is None else latents[np.isin(latents, hits)]
    return in_order, rows


def one_page(bench: Workbench, latents: np.ndarray, noted: NotesOf, found: pd.DataFrame | None) -> pd.DataFrame:
    """The rows of the latents of one page."""
    rows = table(bench).rows(latents, noted)
    bounds = zip(rows["ci_low"], rows["ci_high"], strict=True)
    interval = [f"{low:.2f} to {high:.2f}" if pd.notna(low) and pd.notna(high) else None for low, high in bounds]
    rows = rows.assign(interval=interval)
    if found is None:
        return rows
    extra = found.set_index("latent").loc[latents, [name for name in FOUND if name in found]].reset_index(drop=True)
    return rows.drop(columns=[name for name in extra if name in rows]).join(extra)


def paged(latents: np.ndarray) -> tuple[int, str]:
    """The page that is looked at, from 1, and a name for the rows there."""
    n_pages = max(-(-len(latents) // PAGE_SIZE), 1)
    view = hashlib.blake2b(latents.tobytes(), digest_size=8).hexdigest()
    # What is shown first in a session is as the URL says; a new filter starts on its first page.
    if st.session_state.setdefault("paged", view) != view:
        st.session_state.update(paged=view, page=1)
    caption, pager = st.columns([2, 3], vertical_alignment="center")
    caption.caption(
        f"{len(latents):,} latent{'s' * (len(latents) != 1)}. Click a cell to open the feature, tick rows to choose "
        "several. – is not explained, or not scored."
    )
    with pager:
        page = st.pagination(n_pages, key="page", bind="query-params") if n_pages > 1 else 1
    return min(page, n_pages), f"{view} {page}"


def show_table(rows: pd.DataFrame, columns: tuple[str, ...], key: str) -> np.ndarray:
    """The table; a click on a cell opens its feature. The latents of the rows that are ticked."""
    event = st.dataframe(
        rows,
        key=f"table {key}",
        hide_index=True,
        column_order=columns,
        column_config=COLUMNS,
        placeholder="–",
        on_select="rerun",
        selection_mode=["multi-row", "single-cell"],
        height="content" if len(rows) <= 12 else 640,
    )
    selection = event["selection"]
    if selection["cells"]:
        go("feature", latent=str(rows["latent"].iloc[selection["cells"][0][0]]))
    return rows["latent"].to_numpy()[list(selection["rows"])]


def show(bench: Workbench) -> None:
    """The whole page below its title."""
    written = noted(bench)
    asked = filter_bar(list(table(bench).columns()), notes(bench).lists(bench.dictionary))
    latents, rows = found(bench, asked, written)
    map_panel(bench, latents)
    latents = within(bench, latents)
    if not len(latents):
        st.info("No latent passes these filters.")
        return
    page, key = paged(latents)
    bar = st.container()
    here = one_page(bench, latents[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], written, rows)
    columns = shown_columns(asked.columns, rows)
    ticked = show_table(here, columns, key)
    with bar:
        bulk_bar(bench, ticked, latents, written, columns)


def shown_columns(chosen: tuple[str, ...], found: pd.DataFrame | None) -> tuple[str, ...]:
    """The columns in order: what a search says stands behind the latent's number."""
    extra = [name for name in FOUND if found is not None and name in found]
    return tuple(dict.fromkeys(["latent", *extra, *chosen]))


bench = workbench()
title, views = st.columns([6, 1.2], vertical_alignment="bottom")
title.title("Features")
with views:
    views_bar(bench, "features")
show(bench)
