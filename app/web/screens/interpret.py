"""Interpret: start and watch the explaining and scoring of latents, read what came of it, and rate it blind."""

import streamlit as st

from app.web.panels.agreement import agreement_panel
from app.web.panels.interpret_form import form_panel
from app.web.panels.interpret_results import results_panel
from app.web.panels.rating import rating_panel
from app.web.state import workbench

# Their names are those in the URL.
VIEWS = {"Results": results_panel, "Start": form_panel, "Agreement": agreement_panel, "Rate": rating_panel}
FIRST = "Results"


def show() -> None:
    """The page."""
    bench = workbench()
    st.title("Interpret")
    view = st.segmented_control(
        "View",
        list(VIEWS),
        default=FIRST,
        key="view",
        bind="query-params",
        label_visibility="collapsed",
    )
    VIEWS[view or FIRST](bench)


show()
