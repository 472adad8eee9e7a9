"""What is done with many latents at once: those that are ticked in the table, or all that pass."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from app import jobs
from app.cards import markdown_text
from app.feature_table import NotesOf
from app.web.finding import notes, table
from app.web.navigation import link
from app.web.panels.notes import author_box
from app.web.state import read_only, usage_errors
from app.workbench import Workbench
from autointerp.rating_sheets import safe_cell
from store.errors import UsageError

MOST_NOTED = 10_000
"""Latents that are labelled or put on a list at once."""
MOST_NAMED = 300
"""Latents whose numbers a command names, or a link."""


def bulk_bar(bench: Workbench, ticked: np.ndarray, passing: np.ndarray, noted: NotesOf, columns: Sequence[str]) -> None:
    """Label, put on a list, explain, export.

    Args:
        bench: whose latents they are.
        ticked: those chosen by hand.
        passing: those that pass the filters.
        noted: what people wrote.
        columns: of the export.
    """
    chosen = ticked if len(ticked) else passing
    what = f"{len(ticked):,} ticked" if len(ticked) else f"all {len(passing):,}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"With {what}:", width="content")
        if not read_only():
            with st.popover("Label or list", icon=":material/label:"):
                _note(bench, chosen)
            with st.popover("Explain", icon=":material/auto_awesome:"):
                _explain(bench, chosen)
        st.download_button(
            "CSV",
            lambda: _csv(bench, chosen, noted, columns),
            "latents.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            help="The columns shown, of every page.",
        )


def _note(bench: Workbench, chosen: np.ndarray) -> None:
    author = author_box("bulk")
    sae, known = bench.dictionary, notes(bench)
    with st.form("bulk label", border=False, clear_on_submit=True):
        text = st.text_input("Label", placeholder="what they have in common")
        if st.form_submit_button(f"Label {len(chosen):,}") and text.strip():
            with usage_errors():
                _refuse_many(chosen)
                known.label_many(sae, chosen.tolist(), text.strip(), author)
                st.rerun()
    with st.form("bulk list", border=False, clear_on_submit=True):
        name = st.text_input("List", placeholder="a new one, or one that there is")
        add = st.form_submit_button(f"Add {len(chosen):,}")
        if add and name.strip():
            with usage_errors():
                _refuse_many(chosen)
                known.add_to_list(sae, name.strip(), chosen.tolist(), author)
                st.rerun()
    if lists := known.lists(sae):
        st.caption(markdown_text("Lists: " + ", ".join(f"{name} ({len(on)})" for name, on in lists.items())))


def _refuse_many(chosen: np.ndarray) -> None:
    if len(chosen) > MOST_NOTED:
        raise UsageError(f"{len(chosen):,} latents are more than are noted at once: filter down to {MOST_NOTED:,}")


def _explain(bench: Workbench, chosen: np.ndarray) -> None:
    """The form filled in, and the command: an explainer may cost money, so its forecast is read first."""
    if len(chosen) > MOST_NAMED:
        st.caption(f"{MOST_NAMED} latents are explained from here at most: tick some, or filter further.")
        return
    numbers = [str(latent) for latent in sorted(chosen.tolist())]
    link("interpret", "Open the form", ":material/psychology:", view="Start", which="List", latents=" ".join(numbers))
    st.caption("Or the command that writes an explanation of each. `--dry-run` says first what it takes.")
    argv = ["explain", "--root", str(bench.run.root), "--index-run", bench.run.id, "--latents", *numbers]
    st.code(jobs.shell(argv), language="bash", wrap_lines=True)


def _csv(bench: Workbench, chosen: np.ndarray, noted: NotesOf, columns: Sequence[str]) -> str:
    rows = table(bench).rows(chosen, noted)
    shown = rows.loc[:, [name for name in columns if name in rows]]
    # No text is taken for a formula by a table program.
    texts = shown.select_dtypes(["object", "string"]).columns
    return shown.assign(**{name: shown[name].map(safe_cell, na_action="ignore") for name in texts}).to_csv(index=False)
