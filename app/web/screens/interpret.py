"""Interpret: start and watch the explaining and scoring of latents, read what came of it, and rate it blind."""

import streamlit as st

from app.web.panels.agreement import agreement_panel
from app.web.panels.interpret_form import form_panel
from app.web.panels.interpret_results import results_panel
from app.web.panels.rating import rating_panel
from app.web.state import workbench

VIEWS = {
    "results": ("Results", results_panel),
    "run": ("Start and watch", form_panel),
    "agreement": ("Agreement", agreement_panel),
    "rate": ("Rate blind", rating_panel),
}


def show() -> None:
    """The page."""
    bench = workbench()
    st.title("Interpret")
    view = st.segmented_control(
        "View",
        list(VIEWS),
        default="results",
        format_func=lambda name: VIEWS[name][0],
        key="view",
        bind="query-params",
        label_visibility="collapsed",
    )
    VIEWS[view or "results"][1](bench)


show()
