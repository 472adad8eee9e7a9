"""What a latent's decoder direction does to the logits, and on which tokens it fires."""

import streamlit as st

from app.cards import logits_html, number, wrapped
from app.cards_feature import fires_on_html
from app.figures_feature import logit_histogram
from app.workbench import Workbench
from store.latents import LatentPage

EFFECTS = "SELECT * FROM logit_effects WHERE latent = ?"


@st.fragment
def logits_panel(bench: Workbench, page: LatentPage) -> None:
    """Promoted and suppressed tokens; all effects, and what it fires on, behind a fold each."""
    st.subheader("Logits", help="What its decoder direction alone adds to each token's logit.")
    st.html(wrapped(logits_html(page)))
    with st.expander("All effects", key="effects", bind="query-params") as fold:
        if fold.open:
            _effects(bench, page)
    with st.expander("Tokens it fires on", key="ngrams", bind="query-params") as fold:
        if fold.open:
            st.html(wrapped(fires_on_html(page)))


def _effects(bench: Workbench, page: LatentPage) -> None:
    found = bench.index.arrow(EFFECTS, [page.latent]).to_pylist()
    if not found or found[0]["low"] is None or not found[0]["histogram"]:
        st.caption("None are stored.")
        return
    figures = " · ".join(f"{name} {number(found[0][name])}" for name in ("std", "skewness", "kurtosis"))
    st.plotly_chart(
        logit_histogram(found[0], page),
        key="effects chart",
        alt="Histogram of effects on all logits",
        config={"displayModeBar": False},
    )
    st.caption(f"{figures}; a normal distribution has kurtosis 3. Ticks are the tokens listed above.")
