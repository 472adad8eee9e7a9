"""Lab: which latents fire on a text of one's own, ranked."""

import numpy as np
import pandas as pd
import streamlit as st

from app.cards import number, token_html, visible, wrapped
from app.inspection import Inspection
from app.web.navigation import go
from app.web.state import inspect_box, workbench
from app.workbench import Workbench

N_STRONGEST = 200
RANKS: dict[str, str] = {"share of the latent's maximum": "share", "activation": "value"}
KNOWN = "SELECT latent, max, density, explanation FROM features WHERE list_contains(?, latent)"
COLUMNS = {
    "latent": st.column_config.NumberColumn("Latent", format="%d"),
    "token": st.column_config.TextColumn("Token"),
    "pos": st.column_config.NumberColumn("Position", format="%d"),
    "value": st.column_config.NumberColumn("Activation", format="%.4g"),
    "share": st.column_config.ProgressColumn(
        "Share of max", format="percent", min_value=0, max_value=1, help="Activation over the largest on indexed text."
    ),
    "density": st.column_config.NumberColumn("Density", format="%.3g"),
    "explanation": st.column_config.TextColumn("Explanation", width="large"),
}


def fired(inspection: Inspection, pos: int | None) -> pd.DataFrame:
    """What fired on the token at `pos`; without one, the strongest latents of the text, each where it peaks."""
    if pos is None:
        return inspection.top(N_STRONGEST)
    here = inspection.pos == pos
    return pd.DataFrame({"latent": inspection.latent[here], "value": inspection.value[here], "pos": pos})


def with_index(bench: Workbench, inspection: Inspection, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their token and what the index knows of each latent."""
    known = bench.index.sql(KNOWN, [[int(latent) for latent in rows["latent"]]])
    joined = rows.merge(known, on="latent", how="left")
    tokens = [visible(inspection.tokens[pos]) for pos in joined["pos"]]
    # A latent that never fired on the indexed text has no maximum to be a share of.
    share = (joined["value"] / joined["max"].where(joined["max"] > 0)).clip(upper=1)
    return joined.assign(token=tokens, share=share)


def ranking(bench: Workbench, inspection: Inspection) -> pd.DataFrame:
    """The latents that the person asked for, in the order asked for."""
    by, where, dense = st.columns(3)
    rank = by.selectbox("Rank by", list(RANKS), help="Dense latents are strong everywhere; their share tells less.")
    pos = where.selectbox(
        "Token",
        range(len(inspection.tokens)),
        index=None,
        format_func=lambda i: f"{i}: {visible(inspection.tokens[i])}",
        placeholder="all tokens",
    )
    limit = dense.number_input("Leave out latents denser than", 0.0, 1.0, 0.1, 0.01, format="%.3g")
    rows = with_index(bench, inspection, fired(inspection, pos))
    return rows.loc[rows["density"] <= limit].sort_values(RANKS[rank], ascending=False).reset_index(drop=True)


@st.fragment
def lab(bench: Workbench) -> None:
    """The box, the text and the table."""
    inspection = inspect_box("Text")
    if inspection is None:
        st.caption("Type a text and run it: the latents that fire on it appear here.")
        return
    # Above the controls that decide what is listed, so that they stay in place while the text changes.
    text = st.container()
    rows = ranking(bench, inspection)
    shades = np.zeros(len(inspection.tokens))
    np.maximum.at(shades, rows["pos"].to_numpy(dtype=int), rows["share"].fillna(0).to_numpy(dtype=float))
    text.html(wrapped(token_html(inspection.tokens, shades, 1.0)))
    text.caption(
        f"{len(inspection.tokens)} tokens · FVU on this text {number(inspection.fvu)} · shaded by the strongest latent "
        "listed below, as a share of its maximum"
    )
    table(rows)


def table(rows: pd.DataFrame) -> None:
    """The ranked latents; a click opens one."""
    if rows.empty:
        st.info("No latent passes: raise the density limit or choose all tokens.")
        return
    st.caption("Click a row to open the feature.")
    event = st.dataframe(
        rows,
        key="lab table",
        hide_index=True,
        column_order=list(COLUMNS),
        column_config=COLUMNS,
        placeholder="–",
        on_select="rerun",
        selection_mode=["single-row", "single-cell"],
    )
    clicked = [*event["selection"]["rows"], *(row for row, _ in event["selection"]["cells"])]
    if clicked:
        go("feature", latent=str(rows["latent"].iloc[clicked[0]]))


bench = workbench()
st.title("Lab")
lab(bench)
