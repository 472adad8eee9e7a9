"""Every run: what it is, when it was made and from what, by kind; details of one as its manifest has them."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.health import what_is
from app.web import picking
from app.web.navigation import SCREENS, link
from store.run import Run
from store.under_way import Survey, at_work

ALL = "all"
COLUMNS = {
    "kind": st.column_config.TextColumn("Kind"),
    "id": st.column_config.TextColumn("Id"),
    "what": st.column_config.TextColumn("What", width="large"),
    "when": st.column_config.TextColumn("Finished", help="UTC"),
    "seconds": st.column_config.NumberColumn("Took, s", format="%.0f"),
    "inputs": st.column_config.TextColumn("Made from", width="medium"),
}
DETAILS = ("id", "kind", "config", "inputs", "results", "made_by", "started_at", "finished_at", "seconds")
PAGES = {
    "sae": (("training", "runs", "Training curves"), ("compare", "a", "Compare")),
    "index": (("features", "index", "Browse the features"),),
    "explanations": (("interpret", "explanations", "What they are worth"),),
}
"""By kind: page, the part of its URL that names the run, and the words of the link."""


def runs_panel(seen: Survey) -> None:
    """The table, what is left unfinished, and one run in full."""
    if not seen.finished and not seen.unfinished:
        return
    st.subheader("Runs")
    kinds = [ALL, *sorted({run.kind for run in seen.finished})]
    kind = st.segmented_control("Kind", kinds, default=ALL, key="kind", bind="query-params") or ALL
    runs = [run for run in seen.finished if kind in (ALL, run.kind)]
    _table(runs, kind)
    _details(seen)
    _left(seen)


def _table(runs: Sequence[Run], kind: str) -> None:
    st.caption(f"{len(runs):,} finished run{'s' * (len(runs) != 1)}, the newest first. Click a row for all of it.")
    clicked = picking.picked("runs")
    if clicked is not None:
        st.query_params["run"] = clicked
    ids = [run.id for run in runs]
    picking.table(
        "runs",
        pd.DataFrame([_row(run) for run in runs], columns=list(COLUMNS)),
        ids,
        (kind, hash(tuple(ids))),
        column_config=COLUMNS,
        placeholder="–",
        height="content" if len(runs) <= 12 else 460,
    )


def _row(run: Run) -> dict[str, object]:
    return {
        "kind": run.kind,
        "id": run.id,
        "what": what_is(run),
        "when": run.manifest["finished_at"][:19].replace("T", " "),
        "seconds": run.manifest.get("seconds"),
        "inputs": ", ".join(f"{name} {of}" for name, of in run.inputs.items()),
    }


def _details(seen: Survey) -> None:
    asked = st.query_params.get("run")
    if not asked:
        return
    run = next((each for each in (*seen.finished, *seen.unfinished) if each.id == asked), None)
    if run is None:
        st.warning(markdown_text(f"There is no run {asked}: click one in the table."))
        return
    with st.expander(markdown_text(f"{run.kind} {run.id}"), expanded=True):
        with st.container(horizontal=True):
            for page, name, label in PAGES.get(run.kind, ()):
                if page in SCREENS:
                    link(page, label, ":material/arrow_forward:", **{name: run.id})
        used = [f"{other.kind} {other.id}" for other in seen.finished if run.id in other.inputs.values()]
        if used:
            st.caption(markdown_text(f"Used by: {', '.join(used)}"))
        st.json({key: run.manifest[key] for key in DETAILS if key in run.manifest}, expanded=1)


def _left(seen: Survey) -> None:
    """Runs that were begun and that nobody is making now."""
    left = [run for run in seen.unfinished if at_work(run) is False]
    if not left:
        return
    with st.expander(f"{len(left):,} begun and not finished"):
        st.caption("Stopped or killed: the command that began one goes on with it when it is given again.")
        rows = [{"kind": run.kind, "id": run.id, "begun": run.manifest.get("started_at", "")} for run in left]
        st.dataframe(pd.DataFrame(rows), hide_index=True)
