"""One text in the Prompt lab: its tokens shaded, its figures token by token, and its latents ranked."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st

from app.cards import markdown_text, number, token_html, visible, wrapped
from app.cards_prompt import SHADES, scale, shaded_html
from app.figures_prompt import token_bars
from app.inspection import By, Inspection
from app.web import picking
from app.web.panels.prompt_latent import latent_panel
from app.web.state import MAX_TEXT, worker
from app.web.waiting import answered, asked, forget, outcome
from app.whole_numbers import whole
from app.workbench import Workbench

N_STRONGEST = 200
LATENT = "latent"
"""Shades the text by the latent that is looked at."""
RANKS: dict[str, By] = {"own quantile": "quantile", "activation": "value"}
KNOWN = "SELECT latent, max, density, explanation FROM features WHERE list_contains(?, latent)"
QUANTILE_HELP = (
    "Share of the latent's own active values on the indexed text that are at or below this one, read off its histogram "
    "and its quantiles. – never fired there."
)
TOKEN_COLUMNS = {
    "pos": st.column_config.NumberColumn("#", format="%d", width=50),
    "token": st.column_config.TextColumn("Token"),
    "loss": st.column_config.NumberColumn("Loss", format="%.3g", help=SHADES["loss"].about),
    "error": st.column_config.NumberColumn("Error", format="%.3g", help=SHADES["error"].about),
    "n_active": st.column_config.NumberColumn("L0", format="%d", help="Latents active on it."),
    "1": st.column_config.NumberColumn("1st", format="%d", help="Its strongest latent, in the order chosen above."),
    "2": st.column_config.NumberColumn("2nd", format="%d"),
    "3": st.column_config.NumberColumn("3rd", format="%d"),
}
LATENT_COLUMNS = {
    "latent": st.column_config.NumberColumn("Latent", format="%d"),
    "value": st.column_config.NumberColumn("Activation", format="%.4g"),
    "quantile": st.column_config.ProgressColumn(
        "Own quantile", format="%.3f", min_value=0, max_value=1, help=QUANTILE_HELP
    ),
    "explanation": st.column_config.TextColumn("Explanation", width="large"),
    "token": st.column_config.TextColumn("Token"),
    "pos": st.column_config.NumberColumn("Position", format="%d"),
    "density": st.column_config.NumberColumn("Density", format="%.3g", help="Share of the indexed tokens it fires on."),
}


def text_panel(bench: Workbench) -> None:
    """The box and, once the model has read the text, all that is known of it."""
    text, chat = _box()
    if not text.strip():
        st.caption("Type or paste a text and run it: what fires on each token appears here.")
        return
    inspection = _read(bench, text, chat)
    if inspection is None:
        return
    controls, shown = st.container(), st.container()
    _picks()
    with controls:
        shade, by, densest, pos = _controls(inspection)
    tokens, ranking = st.columns([5, 6], gap="medium")
    ranked = _ranked(bench, inspection, by, densest, pos)
    with tokens:
        _token_table(inspection, by)
    with ranking:
        _latent_table(ranked, pos, inspection)
    latent = _latent(bench, ranked)
    with shown:
        _shaded(bench, inspection, shade, latent, pos)
    if latent is not None:
        latent_panel(bench, inspection, latent, pos, text, chat=chat)


def _box() -> tuple[str, bool]:
    """The text and whether it is a chat; both are in the URL."""
    if "text" not in st.session_state and "text" not in st.query_params and "inspected_text" in st.session_state:
        # What was run on another page.
        st.session_state["text"] = st.session_state["inspected_text"]
    with st.form("prompt", border=False):
        text = st.text_area("Text or chat", key="text", bind="query-params", height=110, max_chars=MAX_TEXT)
        left, right = st.columns([1, 5], vertical_alignment="center")
        if left.form_submit_button("Run", icon=":material/play_arrow:", width="stretch"):
            forget("inspect")
        chat = right.checkbox(
            "Through the model's chat template",
            key="chat",
            bind="query-params",
            help="Lines that begin with `system:`, `user:` or `assistant:` begin a turn of the chat; without any, the "
            "text is one message of a user.",
        )
    return text or "", chat


def _read(bench: Workbench, text: str, chat: bool) -> Inspection | None:
    """What the model made of it, kept for the session; asked for where it is not there."""
    question = (bench.run.id, text, chat)
    kept, inspection = st.session_state.get("prompt read", (None, None))
    if kept == question and answered("inspect", question) is not None:
        return inspection
    asked("inspect", question, lambda: worker().inspect(text, chat=chat))
    job = answered("inspect", question)
    assert job is not None
    found = outcome("inspect", job)
    if found is not None:
        st.session_state["prompt read"] = (question, found)
        # The feature page shows the last text run anywhere.
        st.session_state["inspection"], st.session_state["inspected_text"] = (bench.run.id, found), text
    return found


def _picks() -> None:
    """What was clicked in the tables of the run before."""
    pos, latent = picking.picked("tokens"), picking.picked("latents")
    if pos is not None:
        st.session_state["pos"] = pos
    if latent is not None:
        st.session_state["latent"] = latent


def _controls(inspection: Inspection) -> tuple[str, By, float, int | None]:
    """How it is shown: each of them in the URL."""
    _say_nonsense("pos", "token", len(inspection.tokens) - 1)
    shade, by, dense, token = st.columns([4, 3, 2, 2], vertical_alignment="bottom")
    names = [LATENT, *SHADES]
    shaded = shade.segmented_control("Shade by", names, default=LATENT, key="shade", bind="query-params")
    rank = by.segmented_control(
        "Rank latents by",
        list(RANKS),
        default="own quantile",
        key="by",
        bind="query-params",
        help="A latent that is often strong has to be stronger to be high among its own values.",
    )
    densest = dense.number_input(
        "Leave out denser than", 0.0, 1.0, 0.1, 0.01, format="%.3g", key="dense", bind="query-params"
    )
    if (st.session_state.get("pos") or 0) >= len(inspection.tokens):
        # Of a longer text before.
        st.session_state["pos"] = None
    pos = token.number_input(
        "Token", 0, len(inspection.tokens) - 1, None, key="pos", bind="query-params", placeholder="all"
    )
    return shaded or LATENT, RANKS[rank or "own quantile"], float(densest), pos


def _say_nonsense(name: str, what: str, last: int) -> None:
    """One line where the URL names something that there is not."""
    given = st.query_params.get(name, "")
    if given and whole(given, last) is None:
        st.warning(markdown_text(f"There is no {what} {given[:40]}: choose 0 to {last}."))


def _ranked(bench: Workbench, inspection: Inspection, by: By, densest: float, pos: int | None) -> pd.DataFrame:
    """The latents of a token, or the strongest of the whole text, each where it peaks, with what the index knows."""
    rows = inspection.top(None, by) if pos is None else inspection.at(pos, None, by)
    known = bench.index.sql(KNOWN, [rows["latent"].tolist()])
    joined = rows.merge(known, on="latent", how="left")
    sparse = joined.loc[joined["density"] <= densest]
    kept = sparse.head(N_STRONGEST).reset_index(drop=True)
    kept.attrs["left out"] = len(joined) - len(sparse)
    return kept.assign(token=[visible(token) for token in kept["token"]])


def _token_table(inspection: Inspection, by: By) -> None:
    rows = inspection.per_token(3, by)
    ranks = {name: rows[name].where(rows[name] >= 0) for name in ("1", "2", "3")}
    st.caption("Every token. Click one for its own latents.")
    picking.table(
        "tokens",
        rows.assign(token=[visible(token) for token in rows["token"]], **ranks),
        list(range(len(rows))),
        (hash(inspection.token_ids), by),
        column_order=list(TOKEN_COLUMNS),
        column_config=TOKEN_COLUMNS,
        placeholder="–",
        height=_height(len(rows)),
    )


def _height(n_rows: int) -> int | Literal["content"]:
    return "content" if n_rows <= 10 else 390


def _latent_table(rows: pd.DataFrame, pos: int | None, inspection: Inspection) -> None:
    where = "the whole text, each where it peaks" if pos is None else f"token {pos}, {visible(inspection.tokens[pos])}"
    dense = rows.attrs.get("left out", 0)
    left_out = f" {dense} denser {'one is' if dense == 1 else 'ones are'} left out." if dense else ""
    st.caption(markdown_text(f"Latents on {where}.{left_out} Click one to look at it."))
    if rows.empty:
        st.info("No latent passes: raise the density limit or choose another token.")
        return
    picking.table(
        "latents",
        rows,
        rows["latent"].tolist(),
        (hash(inspection.token_ids), pos, tuple(rows["latent"].head(20))),
        column_order=[name for name in LATENT_COLUMNS if pos is None or name not in ("token", "pos")],
        column_config=LATENT_COLUMNS,
        placeholder="–",
        height=_height(len(rows)),
    )


def _latent(bench: Workbench, ranked: pd.DataFrame) -> int | None:
    """The latent that is looked at: the one chosen, or the first of the ranking."""
    last = bench.d_sae - 1
    _say_nonsense("latent", "latent", last)
    st.subheader("One latent")
    first = f"{ranked['latent'].iloc[0]}, the first above" if len(ranked) else "none"
    box, _ = st.columns([2, 6])
    chosen = box.number_input("Latent", 0, last, None, key="latent", bind="query-params", placeholder=first)
    if chosen is not None:
        return chosen
    return int(ranked["latent"].iloc[0]) if len(ranked) else None


def _shaded(bench: Workbench, inspection: Inspection, shade: str, latent: int | None, pos: int | None) -> None:
    """The text, what shades it, and the same as bars."""
    if shade == LATENT:
        values, name, caption = _by_latent(bench, inspection, latent)
    else:
        chosen = SHADES[shade]
        values, name, caption = chosen.of(inspection), f"{chosen.label}, {chosen.unit}", chosen.about
        st.html(shaded_html(inspection, chosen))
        caption += f" Strongest shade: {number(scale(inspection, chosen))}."
    mean = float(np.nanmean(inspection.loss)) if len(inspection.tokens) > 1 else None
    figures = f"{len(inspection.tokens)} tokens · FVU {number(inspection.fvu)} · mean loss {number(mean)} nats"
    st.caption(markdown_text(f"{figures} · {caption}"))
    st.plotly_chart(
        token_bars(inspection.tokens, values, name, chosen=pos),
        key="bars",
        alt=f"{name}, a bar for each token",
        config={"displayModeBar": False},
    )


def _by_latent(bench: Workbench, inspection: Inspection, latent: int | None) -> tuple[Any, str, str]:
    if latent is None:
        st.html(wrapped(token_html(inspection.tokens, np.zeros(len(inspection.tokens)), 1.0)))
        return np.zeros(len(inspection.tokens)), "activation", "no latent to shade by"
    values = inspection.values(latent)
    known = float(bench.page(latent).statistics["max"] or 0)
    st.html(wrapped(token_html(inspection.tokens, values, max(known, values.max()))))
    return (
        values,
        f"activation of {latent}",
        f"shaded by latent {latent}, its maximum on the indexed text {number(known)}",
    )
