"""Two sides in the Prompt lab: the latents that tell two texts, or two sets of texts, apart."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from app.cards import markdown_text
from app.generator.plain_prompt import contrasted
from app.web import picking
from app.web.panels.prompt_latent import ways_on
from app.web.state import MAX_TEXT, worker
from app.web.waiting import answered, asked, forget, outcome
from app.workbench import Workbench
from store.errors import UsageError

if TYPE_CHECKING:
    from autointerp.prompt_findings import Contrasted

MAX_LINES = 64
N_SHOWN = 30
RANKS = {"firing": "frequency", "activation": "mean", "AUROC": "auroc"}
EXPLAINED = "SELECT latent, density, explanation FROM features WHERE list_contains(?, latent)"
COLUMNS = {
    "latent": st.column_config.NumberColumn("Latent", format="%d"),
    "of_tokens": st.column_config.NumberColumn("Fires in A", format="percent", help="Share of A's normal tokens."),
    "of_other_tokens": st.column_config.NumberColumn("in B", format="percent", help="Share of B's normal tokens."),
    "mean": st.column_config.NumberColumn("Mean, A − B", format="%.3g", help="Difference of mean activations."),
    "auroc": st.column_config.NumberColumn(
        "AUROC", format="%.2f", help="How often a text of A has a higher maximum than one of B; 0.5 tells nothing."
    ),
    "held_frequency": st.column_config.NumberColumn(
        "Firing, held out", format="%.3f", help="Share of A's tokens less share of B's, on lines it was not chosen on."
    ),
    "held_mean": st.column_config.NumberColumn("Mean, held out", format="%.3g"),
    "held_auroc": st.column_config.NumberColumn("AUROC, held out", format="%.2f"),
    "held": st.column_config.TextColumn("95% interval", help="Of the AUROC on lines it was not chosen on."),
    "explanation": st.column_config.TextColumn("Explanation", width="large"),
    "density": st.column_config.NumberColumn("Density", format="%.3g"),
}
HELD = ("held_frequency", "held_mean", "held_auroc", "held")


def contrast_panel(bench: Workbench) -> None:
    """Both boxes and, once the model has read them, a table for either side."""
    a, b, clicked = _boxes()
    if not (a and b):
        st.caption(
            "One text a line: a single line on either side, or sets of them. Four or more on both leave a half "
            "for judging what was chosen on the other."
        )
        return
    question = (bench.run.id, tuple(a), tuple(b))
    if clicked:
        forget("contrast")
    if longest := [name for name, lines in (("A", a), ("B", b)) if len(lines) > MAX_LINES]:
        raise UsageError(
            f"{longest[0]} has more than {MAX_LINES} lines: leave some out, or use a notebook's `contrast`"
        )
    asked("contrast", question, lambda: worker().ask("contrast", contrasted, a=a, b=b))
    job = answered("contrast", question)
    assert job is not None
    found = outcome("contrast", job)
    if found is not None:
        _show(bench, found, a)


def _boxes() -> tuple[list[str], list[str], bool]:
    with st.form("contrast", border=False):
        left, right = st.columns(2)
        boxes = [
            column.text_area(f"{name}, a text a line", key=key, bind="query-params", height=150, max_chars=MAX_TEXT)
            for column, name, key in ((left, "A", "a"), (right, "B", "b"))
        ]
        clicked = st.form_submit_button("Compare", icon=":material/compare_arrows:")
    a, b = ([line.strip() for line in (box or "").splitlines() if line.strip()] for box in boxes)
    return a, b, clicked


def _show(bench: Workbench, found: "Contrasted", a: list[str]) -> None:
    rank = st.segmented_control(
        "Rank by difference of",
        list(RANKS),
        default="firing",
        key="rank",
        bind="query-params",
        help="Firing: share of tokens on which it fires. Activation: mean over tokens. AUROC: of texts, by their "
        "highest activation.",
    )
    st.caption(_told(found))
    by = RANKS[rank or "firing"]
    for more_in_a, name in ((True, "A"), (False, "B")):
        st.subheader(f"More in {name}")
        rows = found.ranked(by, more_in_a=more_in_a, n=N_SHOWN)
        if rows.empty:
            st.info(f"No latent has more in {name}.")
            continue
        _table(bench, rows, name, by, found)


def _told(found: "Contrasted") -> str:
    (n_a, n_b), (tokens_a, tokens_b), (held_a, held_b) = found.n_texts, found.n_tokens, found.n_held
    sizes = f"A: {n_a} text{'s' * (n_a != 1)}, {tokens_a:,} normal tokens · B: {n_b}, {tokens_b:,}"
    if held_a:
        return (
            f"{sizes} · chosen on {n_a - held_a} and {n_b - held_b} of them; the columns “held out” are of the other "
            f"{held_a} and {held_b}. What was chosen for its contrast has less of it there."
        )
    return (
        f"{sizes} · with fewer than four different texts on a side none is left to judge on: these are differences "
        "between these very texts, and need not be there in others."
    )


def _table(bench: Workbench, rows: pd.DataFrame, name: str, by: str, found: "Contrasted") -> None:
    """A side's latents; those that are picked may be opened or steered."""
    known = bench.index.sql(EXPLAINED, [rows["latent"].tolist()])
    joined = rows.merge(known, on="latent", how="left")
    ends = zip(joined["held_low"], joined["held_high"], strict=True)
    shown = joined.assign(held=[f"{low:.2f} to {high:.2f}" if low == low else None for low, high in ends])
    event = st.dataframe(
        shown,
        key=f"contrast {name} {by} {hash(tuple(rows['latent']))}",
        hide_index=True,
        column_order=[column for column in COLUMNS if found.n_held[0] or column not in HELD],
        column_config=COLUMNS,
        placeholder="–",
        on_select="rerun",
        selection_mode=["multi-row", "single-cell"],
        height="content" if len(rows) <= 8 else 320,
    )
    picked = [int(rows["latent"].iloc[row]) for row in dict.fromkeys(picking.rows_of(event))]
    if picked:
        st.caption(markdown_text(f"Picked: {', '.join(map(str, picked))}."))
        ways_on(picked, "")
    else:
        st.caption("Pick rows to open or steer by their latents.")
