"""Going from one latent to another on the page of a latent: its widgets keep their places, and their numbers change."""

import random

import streamlit as st

from app.web.panels.contexts import close_document
from app.web.state import INDEX
from app.workbench import Workbench

GOING = "going"


def move(to: int) -> None:
    """Show another latent, and its contexts: for callbacks, which run before the page."""
    st.session_state["latent"] = to
    close_document()


def move_to_random(bench: Workbench) -> None:
    """Show any latent that fired."""
    alive = bench.index.sql("SELECT latent FROM latents WHERE n_fired > 0")["latent"]
    if len(alive):
        move(int(random.choice(alive.tolist())))


def leave_for(latent: int, index: str | None) -> None:
    """Show another latent, of another index if one is given: from the middle of the page, which begins anew."""
    st.session_state[GOING] = (latent, index)
    st.rerun()


def arrive() -> None:
    """Before anything of the page is drawn: go where `leave_for` said."""
    latent, index = st.session_state.pop(GOING, (None, None))
    if latent is not None:
        move(latent)
    if index is not None:
        st.session_state[INDEX] = st.query_params[INDEX] = index
