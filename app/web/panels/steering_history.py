"""What was steered with this dictionary: a table; a click brings its settings back."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.cards import visible
from app.steering_settings import SteeringSettings, result_of
from app.web import picking
from app.web.panels.notes import author
from app.web.state import read_only, usage_errors
from app.workbench import Workbench
from autointerp.steer_config import told
from store.errors import UsageError
from store.notes import Notes, Steered

N_SHOWN = 200
COLUMNS = {
    "made_at": st.column_config.DatetimeColumn("When", format="YYYY-MM-DD HH:mm", width=140),
    "author": st.column_config.TextColumn("Who", width=80),
    "prompt": st.column_config.TextColumn("Prompt", width="medium"),
    "edits": st.column_config.TextColumn("Edits", width="large"),
    "steered": st.column_config.TextColumn("Steered", width="medium"),
}


def keep(bench: Workbench, settings: SteeringSettings, found: Sequence) -> None:
    """Write down what was steered and what came of it; nothing in a dashboard that is for looking only."""
    if read_only():
        return
    Notes(bench.run.root).record_steering(bench.dictionary, settings.plain(), result_of(found), author())


def to_restore() -> SteeringSettings | None:
    """What was clicked in the run before, once; boxes can only be filled before they are drawn.

    Raises:
        UsageError: it cannot be read.
    """
    clicked = picking.picked("history")
    return None if clicked is None else SteeringSettings.of_plain(clicked)


def history_panel(bench: Workbench) -> None:
    """The newest first; a click on one restores it."""
    st.subheader("History", help="Kept with the runs, for everyone who opens them.")
    newest: list[Steered] = []
    with usage_errors():
        newest = Notes(bench.run.root).steerings(bench.dictionary)[: -N_SHOWN - 1 : -1]
    if not newest:
        st.caption("Nothing is kept of what is steered here: read-only." if read_only() else "Nothing was steered yet.")
        return
    st.caption("Click a row to bring its settings back." + (" Read-only: what you steer is not kept." * read_only()))
    picking.table(
        "history",
        pd.DataFrame([_row(each) for each in newest]),
        [each.settings for each in newest],
        (bench.dictionary, hash(tuple((each.author, each.made_at) for each in newest))),
        column_order=list(COLUMNS),
        column_config=COLUMNS,
        height="content" if len(newest) <= 8 else 320,
    )


def _row(each: Steered) -> dict[str, object]:
    """What is shown of one; of a row by another hand, what there is."""
    texts = each.result.get("texts") or [{}]
    try:
        edits = "; ".join(map(told, SteeringSettings.of_plain(each.settings).edits))
    except (UsageError, KeyError):
        edits = "cannot be read"
    return {
        "made_at": pd.Timestamp(each.made_at),
        "author": each.author,
        "prompt": visible(str(each.settings.get("prompt", ""))),
        "edits": edits,
        "steered": visible(str(texts[0].get("steered", ""))),
    }
