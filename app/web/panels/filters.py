"""What is asked of the table of latents: a search, filters, a condition in SQL, columns and order, all in the URL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.feature_table import BEST_FIRST, Filters
from app.web.finding import Search

WORDS = "words"
WAYS: dict[str, str] = {
    WORDS: "in the explanation, a label or the promoted tokens",
    "explanation": "explanations with every word, best first",
    "meaning": "explanations that mean the like",
    "token": "what fires on a token",
    "text": "what fires on text that reads so",
}
"""Where to look, by the name in the URL."""
RELEVANCE = "relevance"
SORTS: dict[str, str] = {
    "score": "score",
    "score above null": "score_minus_null",
    "density": "density",
    "max activation": "max",
    "documents": "n_docs",
    "latent": "latent",
}
"""Names of columns in words; the others are sorted by under their own."""
ORDERS = {"high first": "DESC", "low first": "ASC"}
SHOWN = (
    "latent",
    "label",
    "explanation",
    "score",
    "interval",
    "n_judged",
    "chance",
    "null_score",
    "promotes",
    "density",
    "max",
    "n_docs",
)
"""Columns unless others are chosen."""
INTERVAL = "interval"
"""The one column that is made of two."""


@dataclass(frozen=True)
class Asked:
    """What the person asked for."""

    filters: Filters
    search: Search | None
    order: str | None
    """Terms of ORDER BY; None for what a search found, in its order."""
    columns: tuple[str, ...]


def filter_bar(columns: Sequence[str], lists: Mapping[str, Sequence[int]]) -> Asked:
    """The controls above the table.

    Args:
        columns: of the table.
        lists: the latents on each list.
    """
    query, by, sql = st.columns([3, 1.3, 3], vertical_alignment="bottom")
    text = query.text_input("Search", key="q", bind="query-params", placeholder="anything").strip()
    way = by.selectbox("in", list(WAYS), key="by", bind="query-params", help=_ways_help())
    condition = sql.text_input(
        "Condition in SQL",
        key="sql",
        bind="query-params",
        placeholder="density < 0.01 AND score > 0.8 ORDER BY max DESC",
        help=f"Over the columns {', '.join(f'`{name}`' for name in columns)}. ORDER BY, LIMIT and OFFSET may follow. "
        "It can only read, and ends after 10 s.",
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        search = _search(text, way)
        filters = _filters(text if way == WORDS else "", condition, lists)
        order = _order(columns, search is not None)
        shown = _columns(columns)
    return Asked(filters, search, order, shown)


def _ways_help() -> str:
    return "\n".join(f"- **{name}**: {what}" for name, what in WAYS.items())


def _search(text: str, way: str) -> Search | None:
    """The search, with the settings that its way has."""
    regex, embedder = False, "minilm"
    if way == "text":
        regex = st.checkbox("Regular expression", key="regex", bind="query-params")
    if way == "meaning":
        embedders = ("minilm", "hashed")
        embedder = st.selectbox(
            "Embedder",
            embedders,
            key="embedder",
            bind="query-params",
            width=130,
            help="`hashed` needs no model and knows words only.",
        )
    return Search(text, way, regex, embedder) if text and way != WORDS else None


def _filters(text: str, condition: str, lists: Mapping[str, Sequence[int]]) -> Filters:
    low, high = _density("Density from", "from"), _density("Density to", "to")
    named = st.selectbox(
        "On list",
        list(lists),
        None,
        key="list",
        bind="query-params",
        placeholder="any",
        width=150,
    )
    with st.container(width="content", gap=None):
        explained = st.checkbox("Explained only", key="explained", bind="query-params")
        scored = st.checkbox("Scored only", key="scored", bind="query-params")
        alive = st.checkbox("Alive only", value=True, key="alive", bind="query-params")
    return Filters(
        text=text,
        low=low,
        high=high,
        explained=explained,
        scored=scored,
        alive=alive,
        among=None if named is None else tuple(lists[named]),
        sql=condition.strip(),
    )


def _density(label: str, key: str) -> float | None:
    return st.number_input(
        label, 0.0, 1.0, None, 0.001, format="%.6g", key=key, bind="query-params", placeholder="any", width=140
    )


def _order(columns: Sequence[str], searching: bool) -> str | None:
    """The ORDER BY terms; None for the order in which a search found them."""
    others = [name for name in columns if name not in SORTS.values()]
    options = [RELEVANCE, *SORTS, *others]
    column = st.selectbox(
        "Sort by",
        options,
        key="sort",
        bind="query-params",
        width=190,
        help="Relevance: of what is searched for; without a search, by score.",
    )
    direction = st.segmented_control("Order", list(ORDERS), default="high first", key="order", bind="query-params")
    if column == RELEVANCE:
        return None if searching else BEST_FIRST
    return f'f."{SORTS.get(column, column)}" {ORDERS[direction or "high first"]} NULLS LAST'


def _columns(columns: Sequence[str]) -> tuple[str, ...]:
    known: list[Any] = [*SHOWN, *(name for name in columns if name not in SHOWN)]
    with st.popover("Columns", icon=":material/view_column:"):
        chosen = st.multiselect("Columns of the table", known, list(SHOWN), key="cols", bind="query-params")
    return tuple(chosen) or SHOWN
