"""What interpretations of an index found: a table of all of them, and the report on one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.cards_interpret import table_html
from app.interpretation.results import can_be_reported, results
from app.interpretation.view import Page, Section, page
from app.spending import outcomes, spent_today
from app.web import picking
from app.web.navigation import go
from app.web.state import root, usage_errors
from app.workbench import Workbench
from autointerp.llm.metered import told
from autointerp.reporting import Figures, Subject, figures, subject
from store.under_way import Survey, survey

NONE_YET = "Nothing is explained in this index yet: begin under **Start**, or with `monosem interpret`."
OPEN = ("above", "histograms")
"""Sections that are unfolded from the start."""
PARAMETER = "explanations"
TILES_IN_A_ROW = 3
COLUMNS = {
    "explanations": st.column_config.TextColumn("Explanations", help="Id of the run."),
    "explainer": st.column_config.TextColumn("Explainer"),
    "n_explained": st.column_config.NumberColumn("Explained", format="%d"),
    "n_unexplained": st.column_config.NumberColumn("Not explained", format="%d"),
    "why": st.column_config.TextColumn("Why not"),
    "scorer": st.column_config.TextColumn("Scorer"),
    "model": st.column_config.TextColumn("Language model"),
    "mean": st.column_config.NumberColumn("Score", format="%.3f", help="Mean over latents. Empty: could not be told."),
    "mean_95": st.column_config.TextColumn("95%"),
    "above": st.column_config.NumberColumn(
        "Above shuffled", format="%+.3f", help="More than another latent's explanation gets on the same trial."
    ),
    "above_95": st.column_config.TextColumn("95% of it"),
    "p": st.column_config.NumberColumn("p", format="%.4f"),
    "n": st.column_config.NumberColumn("n", format="%d", help="Latents with a score."),
    "n_not_scored": st.column_config.NumberColumn("Not scored", format="%d"),
    "unread": st.column_config.NumberColumn("Unread", format="percent", help="Answers that could not be read."),
    "calls": st.column_config.NumberColumn("Calls", format="%d"),
    "tokens": st.column_config.NumberColumn("Tokens", format="%d"),
    "usd": st.column_config.NumberColumn("US$", format="%.4f", help="As far as prices are known."),
    "when": st.column_config.TextColumn("Finished", help="UTC"),
}


class Report(NamedTuple):
    """On one run of explanations."""

    of: Subject
    found: Figures
    page: Page
    texts: Mapping[int, str]
    """Explanations of the chosen latents."""


@st.cache_resource(show_spinner="Reading the scores …", max_entries=6)
def _report(_bench: Workbench, folder: str, version: str, explanations: str, scores: tuple[str, ...]) -> Report:
    del folder, version, scores  # another report than that of another time
    of = subject(_bench.index, explanations)
    found = figures(_bench.index, of)
    chosen = [row["latent"] for row in found.chosen]
    texts = {row["latent"]: row["text"] for row in _bench.index.arrow(of.query("texts", chosen)).to_pylist()}
    return Report(of, found, page(_bench.index, of, found, []), texts)


def report_of(bench: Workbench, seen: Survey, explanations: str) -> Report:
    """The report on a run of explanations, as the index is published now.

    Raises:
        UsageError: there is no such run, or it has no scores.
    """
    scores = tuple(run.id for run in seen.of_kind("scores") if run.inputs.get("explanations") == explanations)
    return _report(bench, str(bench.run.folder), bench.index.version(), explanations, scores)


def chosen_explanations(bench: Workbench, seen: Survey) -> str | None:
    """Those that the URL names; without, the newest that can be reported."""
    runs = [run.id for run in seen.of_kind("explanations") if run.inputs.get("index") == bench.run.id]
    asked = st.query_params.get(PARAMETER)
    if asked:
        if asked in runs:
            return asked
        st.warning(markdown_text(f"There are no explanations {asked} of this index: choose some in the table."))
    return next((run for run in runs if can_be_reported(seen, run)), None)


def results_panel(bench: Workbench) -> None:
    """The table and the report."""
    seen = survey(root())
    rows = results(seen, bench.run.id, root())
    spent = spent_today(root())
    if spent is not None:
        st.caption(markdown_text(f"Language models today (UTC), all runs of this folder: {told(spent)}."))
    if not rows:
        st.info(NONE_YET)
        return
    _table(bench, rows)
    explanations = chosen_explanations(bench, seen)
    if explanations is None:
        st.info("None of these has scores that can be reported: `monosem score` makes some.")
    elif not can_be_reported(seen, explanations):
        st.info(markdown_text(f"Explanations {explanations} have no scores: `monosem score` makes some."))
    else:
        with usage_errors():
            _show(report_of(bench, seen, explanations))


def _table(bench: Workbench, rows: Sequence[dict]) -> None:
    clicked = picking.picked("interpretations")
    if clicked is not None:
        st.query_params[PARAMETER] = clicked
    st.caption("Click a row for the report on those explanations. Empty: not asked, or it could not be told.")
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    ids = [row["explanations"] for row in rows]
    picking.table(
        "interpretations",
        frame.dropna(axis="columns", how="all"),
        ids,
        (bench.run.id, hash(tuple(ids))),
        column_config=COLUMNS,
        placeholder="–",
        height="content" if len(rows) <= 10 else 400,
    )


def _show(report: Report) -> None:
    st.subheader(f"{report.page.title}", anchor=False)
    st.caption(markdown_text(" · ".join(f"{name}: {what}" for name, what in report.page.described.items())))
    for start in range(0, len(report.page.tiles), TILES_IN_A_ROW):
        row = report.page.tiles[start : start + TILES_IN_A_ROW]
        for column, (label, value) in zip(st.columns(TILES_IN_A_ROW), row, strict=False):
            column.metric(label, value, border=True)
    ended = outcomes(root(), [report.of.explanations.id, *report.of.labels])
    if ended:
        told_outcomes = ", ".join(f"{n:,} {outcome}" for outcome, n in ended.items())
        st.caption(markdown_text(f"Calls of language models by what became of them: {told_outcomes}."))
    _latents(report)
    for section in report.page.sections:
        if section.id in OPEN:
            st.subheader(section.title, anchor=False)
            section_body(section)
        else:
            with st.expander(section.title):
                section_body(section)


def _latents(report: Report) -> None:
    """Some of the best, the middle and the worst explained, each a click away."""
    if not report.found.chosen:
        return
    clicked = picking.picked("chosen latents")
    if clicked is not None:
        go("feature", latent=str(clicked))
    st.markdown("**Some latents**: the best explained, of the middle, and the worst. Click one to open it.")
    rows = pd.DataFrame([{**row, "text": report.texts.get(row["latent"])} for row in report.found.chosen])
    latents = [row["latent"] for row in report.found.chosen]
    picking.table(
        "chosen latents",
        rows,
        latents,
        (report.of.explanations.id, hash(tuple(latents))),
        column_order=["latent", "text", "gain", "place", "n"],
        column_config={
            "text": st.column_config.TextColumn("Explanation", width="large"),
            "latent": st.column_config.NumberColumn("Latent", format="%d"),
            "gain": st.column_config.NumberColumn("Above shuffled, or chance", format="%+.3f"),
            "place": st.column_config.NumberColumn("Place", format="%d"),
            "n": st.column_config.NumberColumn("Of", format="%d"),
        },
    )


def section_body(section: Section) -> None:
    """What a section says, its tables and plots, and the queries they are read from."""
    st.caption(section.about)
    for table in section.tables:
        st.html(table_html(table.columns, table.rows))
    columns = [st.container()] if section.wide or len(section.plots) < 2 else st.columns(2)
    for place, plot in enumerate(section.plots):
        columns[place % len(columns)].plotly_chart(plot, key=f"{section.id} {place}", alt=section.title)
    for remark in section.remarks:
        st.caption(markdown_text(remark))
    with st.popover("SQL", icon=":material/database:"):
        for query in section.queries:
            st.caption(query.about)
            st.code(query.sql, language="sql")
