"""A live test of a latent on a text of one's own, and where its result falls among all of its values."""

import streamlit as st

from app.cards import largest_on, number, shade_scale, token_html, wrapped
from app.figures import activation_histogram
from app.inspection import Inspection
from app.web.state import inspect_box
from store.latents import LatentPage


@st.fragment
def test_panel(page: LatentPage) -> None:
    """A live test on the left, and where its result falls among all values on the right."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Test your own text")
        inspection = inspect_box("Text to run through the model")
        largest = tested_text(page, inspection) if inspection else 0.0
    with right:
        st.subheader("Activations", help="All active values on the indexed text, in equal-width bins; log counts.")
        figure = activation_histogram(page, largest or None)
        st.plotly_chart(figure, key="histogram", alt="Histogram of active values", config={"displayModeBar": False})


def tested_text(page: LatentPage, inspection: Inspection) -> float:
    """Show the person's text shaded by this latent; its largest value on a normal token."""
    values, largest = inspection.values(page.latent), largest_on(inspection, page.latent)
    st.html(wrapped(token_html(inspection.tokens, values, shade_scale(page, inspection))))
    n_active = int((values > 0).sum())
    share = f", {largest / page.statistics['max']:.0%} of its maximum" if page.alive else ""
    strongest = f"; strongest on a normal token {number(largest)}{share}" if largest else ""
    st.caption(f"Active on {n_active} of {len(values)} tokens{strongest}.")
    return largest
