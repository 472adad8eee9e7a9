"""Tables of which a row may be picked, and what the pick sets: known before any widget of the run is drawn."""

from collections.abc import Sequence
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

T = TypeVar("T")


def picked(name: str) -> Any:
    """What the row stands for that was clicked since the run before; None where none was.

    A widget's value can be set before it is drawn only: so this is asked before.
    """
    key, things = st.session_state.get(f"{name} shown", (None, ()))
    rows = rows_of(st.session_state.get(key)) if key else []
    if rows == st.session_state.get(f"{name} seen", []):
        return None
    st.session_state[f"{name} seen"] = rows
    return things[rows[0]] if rows and rows[0] < len(things) else None


def table(name: str, rows: pd.DataFrame, things: Sequence[Any], view: tuple[Any, ...], **options: Any) -> None:
    """A table of which one row may be picked.

    Args:
        name: of the table on its page.
        rows: what is shown.
        things: what each row stands for.
        view: what the rows depend on: another view is another table, with nothing picked.
        options: of `st.dataframe`.
    """
    key = f"{name} {view}"
    if st.session_state.get(f"{name} shown", (None,))[0] != key:
        st.session_state.pop(f"{name} seen", None)
    st.session_state[f"{name} shown"] = (key, list(things))
    st.dataframe(
        rows, key=key, hide_index=True, on_select="rerun", selection_mode=["single-row", "single-cell"], **options
    )


def rows_of(event: Any) -> list[int]:
    """The rows that are selected, or whose cells are."""
    selection = event["selection"] if event else {"rows": [], "cells": []}
    return [*selection["rows"], *(row for row, _ in selection["cells"])]
