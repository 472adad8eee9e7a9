"""Features: the dictionary as a table, filtered, sorted and paged in SQL; a click opens the feature."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from app.web.navigation import go
from app.web.state import workbench
from store.feature_index import FeatureIndex

PAGE_SIZE = 50
SORTS: dict[str, str] = {
    # First, so that a newcomer's first page is of latents with something to read.
    "score": "score",
    "score above null": "score_minus_null",
    "density": "density",
    "max activation": "max",
    "documents": "n_docs",
    "latent": "latent",
}
ORDERS = {"high first": "DESC", "low first": "ASC"}
ROWS = """
SELECT f.latent, f.explanation, f.score, f.ci_low, f.ci_high, f.n_judged, f.chance, f.null_score, f.promotes,
       f.density, f.max, f.n_docs
FROM features f
WHERE {where} ORDER BY {order} NULLS LAST, latent LIMIT ? OFFSET ?
"""
COLUMNS = {
    "latent": st.column_config.NumberColumn("Latent", format="%d", width="small", pinned=True),
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
}


@dataclass(frozen=True)
class Filters:
    """What the person asked to see."""

    text: str
    low: float | None
    high: float | None
    explained: bool
    scored: bool
    alive: bool

    def where(self) -> tuple[str, list[Any]]:
        """The SQL condition and its parameters; nothing typed by a person is part of the SQL."""
        pattern = f"%{self.text.translate(str.maketrans({character: f'^{character}' for character in '^%_'}))}%"
        asked = (
            (bool(self.text), "(f.explanation ILIKE ? ESCAPE '^' OR f.promotes ILIKE ? ESCAPE '^')", [pattern] * 2),
            (self.low is not None, "f.density >= ?", [self.low]),
            (self.high is not None, "f.density <= ?", [self.high]),
            (self.explained, "f.explanation IS NOT NULL", []),
            (self.scored, "f.score IS NOT NULL", []),
            (self.alive, "f.n_fired > 0", []),
        )
        chosen = [(condition, parameters) for wanted, condition, parameters in asked if wanted]
        clause = " AND ".join(condition for condition, _ in chosen) or "true"
        return clause, [value for _, parameters in chosen for value in parameters]


def filter_bar() -> tuple[Filters, str]:
    """The filters and the ORDER BY term; each is kept in the URL, so that a view can be sent to somebody."""
    text, low, high = st.columns([3, 1, 1])
    explained, scored, alive, sort, order = st.columns([1, 1, 1, 1.5, 1.5], vertical_alignment="bottom")
    filters = Filters(
        text=text.text_input("Explanation or promoted token contains", key="q", bind="query-params").strip(),
        low=_density(low, "Density from", "from"),
        high=_density(high, "Density to", "to"),
        explained=explained.checkbox("Explained only", key="explained", bind="query-params"),
        scored=scored.checkbox("Scored only", key="scored", bind="query-params"),
        alive=alive.checkbox("Alive only", value=True, key="alive", bind="query-params"),
    )
    column = sort.selectbox("Sort by", list(SORTS), key="sort", bind="query-params")
    direction = order.segmented_control("Order", list(ORDERS), default="high first", key="order", bind="query-params")
    return filters, f"f.{SORTS[column]} {ORDERS[direction or 'high first']}"


def _density(column: Any, label: str, key: str) -> float | None:
    return column.number_input(
        label, 0.0, 1.0, None, 0.001, format="%.6g", key=key, bind="query-params", placeholder="any"
    )


def one_page(index: FeatureIndex, where: str, parameters: list[Any], order: str, page: int) -> pd.DataFrame:
    """The rows of page `page`, from 1."""
    query = ROWS.format(where=where, order=order)
    rows = index.sql(query, [*parameters, PAGE_SIZE, (page - 1) * PAGE_SIZE])
    bounds = zip(rows["ci_low"], rows["ci_high"], strict=True)
    interval = [f"{low:.2f} to {high:.2f}" if pd.notna(low) and pd.notna(high) else None for low, high in bounds]
    return rows.assign(interval=interval)


def table(rows: pd.DataFrame, view: tuple[Any, ...]) -> None:
    """The table; a click on a row opens its feature."""
    event = st.dataframe(
        rows,
        key=f"table {view}",
        hide_index=True,
        column_order=list(COLUMNS),
        column_config=COLUMNS,
        placeholder="–",
        on_select="rerun",
        selection_mode=["single-row", "single-cell"],
        height="content" if len(rows) <= 12 else 640,
    )
    selection = event["selection"]
    clicked = [*selection["rows"], *(row for row, _ in selection["cells"])]
    if clicked:
        go("feature", latent=str(rows["latent"].iloc[clicked[0]]))


bench = workbench()
st.title("Features")
filters, order = filter_bar()
where, parameters = filters.where()
n_rows = int(bench.index.sql(f"SELECT count(*) AS n FROM features f WHERE {where}", parameters)["n"].iloc[0])
n_pages = max(-(-n_rows // PAGE_SIZE), 1)
if n_rows == 0:
    st.info("No latent passes these filters.")
    st.stop()
caption, pager = st.columns([2, 3], vertical_alignment="center")
caption.caption(
    f"{n_rows:,} latent{'s' * (n_rows != 1)}. Click a row to open the feature. – is not explained, or not scored."
)
with pager:
    # A key of its own for each filter, so that a new filter starts on its first page.
    page = st.pagination(n_pages, key=f"page {where} {parameters} {order}") if n_pages > 1 else 1
table(one_page(bench.index, where, parameters, order, page), (where, *parameters, order, page))
