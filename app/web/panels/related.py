"""Latents that have to do with one: near it in direction, active with it, and its family in other dictionaries."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.feature_table import explained
from app.web import picking
from app.web.panels.moving import leave_for
from app.web.state import LONGEST_S, usage_errors
from app.workbench import Workbench
from store.latents import LatentPage
from store.relatives import Relatives, relatives

COLUMNS: dict[str, Any] = {
    "other": st.column_config.NumberColumn("Latent", format="%d", width="small", pinned=True),
    "explanation": st.column_config.TextColumn("Explanation", width="large"),
    "cosine": st.column_config.NumberColumn("Cosine", format="%.3f"),
    "density": st.column_config.NumberColumn("Density", format="%.3g"),
    "n_both": st.column_config.NumberColumn("Tokens with both", format="%d"),
    "expected": st.column_config.NumberColumn("By chance", format="%.3g", help="Were the two independent."),
    "phi": st.column_config.NumberColumn("φ", format="%.3f", help="Correlation of firing or not."),
    "jaccard": st.column_config.NumberColumn("Jaccard", format="%.3f"),
    "pmi": st.column_config.NumberColumn("PMI", format="%.2f bits"),
    "implies": st.column_config.NumberColumn("Implies", format="percent", help="Of its firings, those with the other."),
    "implied_by": st.column_config.NumberColumn(
        "Implied by", format="percent", help="Of the other's firings, those with this one."
    ),
    "value": st.column_config.NumberColumn("Value", format="%.3f"),
    "threshold": st.column_config.NumberColumn("Chance", format="%.3f", help="99% quantile of the null's best."),
    "mutual": st.column_config.CheckboxColumn("Mutual", help="Each is the other's best."),
    "above_chance": st.column_config.CheckboxColumn("Above chance"),
    "share": st.column_config.NumberColumn("Share", format="percent", help="Of the parent's firings."),
    "parent_silent": st.column_config.NumberColumn(
        "Parent silent", format="percent", help="Of the child's firings, those on which the parent is silent."
    ),
    "decoder": st.column_config.NumberColumn("Decoder cosine", format="%.3f"),
    "coverage": st.column_config.NumberColumn("Coverage", format="percent", help="Of the parent's, by all children."),
    "largest": st.column_config.NumberColumn("Widest child", format="percent"),
}


@st.fragment
def related_panel(bench: Workbench, page: LatentPage) -> None:
    """A tab for each kind of relation; what is behind a closed one is not asked for."""
    st.subheader("Neighbours and family", help="Click a row to open the latent.")
    tabs = st.tabs(list(TABS), key="related", bind="query-params")
    for draw, tab in zip(TABS.values(), tabs, strict=True):
        if tab.open:
            with tab, usage_errors():
                draw(bench, page)


def _near(side: str) -> Callable[[Workbench, LatentPage], None]:
    def draw(bench: Workbench, page: LatentPage) -> None:
        rows = [row for row in page.neighbours if row["side"] == side]
        if not rows:
            st.caption(f"No {side} neighbours are stored.")
            return
        _table(bench, pd.DataFrame(rows, columns=["other", "cosine"]), side, page.latent)

    return draw


def _together(bench: Workbench, page: LatentPage) -> None:
    if not page.coactivations:
        st.caption("It fires on fewer than five tokens together with any other.")
        return
    rows = pd.DataFrame(page.coactivations).drop(columns="latent")
    st.caption("Counts over all tokens; by φ, the first by any measure.")
    _table(bench, rows, "together", page.latent)


def _table(bench: Workbench, rows: pd.DataFrame, kind: str, latent: int, index: str | None = None) -> None:
    """Rows with a column `other`; a click opens that latent, of another index if one is given."""
    name, others = f"related {kind}", rows["other"].tolist()
    clicked = picking.picked(name)
    if clicked is not None:
        leave_for(int(clicked), index)
    if "explanation" not in rows:
        about = explained(bench.index, rows["other"].tolist())
        rows = rows.assign(
            explanation=[about[other]["explanation"] for other in rows["other"]],
            density=[about[other]["density"] for other in rows["other"]],
        )
    first = ["other", "explanation"]
    picking.table(
        name,
        rows.reindex(columns=[*first, *(column for column in rows if column not in first)]),
        others,
        (bench.run.id, latent, hash(tuple(others))),
        column_config=COLUMNS,
        placeholder="–",
        height="content" if len(rows) <= 8 else 320,
    )


def _elsewhere(bench: Workbench, page: LatentPage) -> None:
    found = list(relatives(bench.run, page.latent, LONGEST_S))
    if not found:
        st.caption("This index was not matched with another: `monosem match` does so.")
    for each in found:
        _family(bench, page, each)


def _family(bench: Workbench, page: LatentPage, told: Relatives) -> None:
    st.markdown(f"**Index {markdown_text(told.other_index)}** (matching {markdown_text(told.matching.id)})")
    parts = (
        ("Its best partner by each measure:", told.partners),
        ("It is split into these, or absorbed by them:", told.children),
        ("It is one of several into which these are split, or absorbs them:", told.parents),
    )
    for number, (title, rows) in enumerate(parts):
        if len(rows):
            st.caption(title)
            _table(bench, rows, f"{told.matching.id} {number}", page.latent, told.other_index)
    if not any(len(rows) for _, rows in parts):
        st.caption("It was not matched: it never fires there, or on too few tokens.")


TABS: dict[str, Callable[[Workbench, LatentPage], None]] = {
    "Decoder": _near("decoder"),
    "Encoder": _near("encoder"),
    "Fires together": _together,
    "Other dictionaries": _elsewhere,
}
"""By what is written on them."""
