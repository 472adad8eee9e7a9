"""Feature: one latent with its explanation, contexts, distribution and logits, and live tests of it."""

import random
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.cards import (
    band_label,
    contexts_html,
    explanations_html,
    feature_card_html,
    largest_on,
    logits_html,
    markdown_text,
    number,
    shade_scale,
    static_page,
    steering_html,
    texts_html,
    token_html,
    wrapped,
)
from app.figures import activation_histogram
from app.web.jobs import of_tab
from app.web.navigation import link
from app.web.panels import steering
from app.web.state import inspect_box, workbench, worker
from app.workbench import Inspection, Workbench
from store.latents import LatentPage, Window

STRENGTHS = (-2.0, 4.0)
DEFAULT_STRENGTH = 1.0


@dataclass(frozen=True)
class Statistic:
    """A figure of the latent and how it is shown."""

    key: str
    label: str
    form: str
    help: str


STATISTICS = (
    Statistic("density", "Density", "{:.3g}", "Share of the indexed tokens on which it is active."),
    Statistic("n_fired", "Tokens", "{:,}", "Tokens on which it is active."),
    Statistic("n_docs", "Documents", "{:,}", "Documents with at least one such token."),
    Statistic("q50", "Median", "{:.4g}", "Median of its active values."),
    Statistic("q999", "q99.9", "{:.4g}", "99.9% of its active values are below this; the unit of steering strength."),
    Statistic("max", "Max", "{:.4g}", "Its largest value on the indexed text; the strongest shade below."),
)


def move(to: int) -> None:
    """Show another latent."""
    st.session_state["latent"] = to


def move_to_random(bench: Workbench) -> None:
    """Show any latent that fired."""
    alive = bench.index.sql("SELECT latent FROM latents WHERE n_fired > 0")["latent"]
    if len(alive):
        move(int(random.choice(alive.tolist())))


def choose(bench: Workbench) -> int:
    """The latent that the URL names; the controls change both."""
    box, back, on, chance, _ = st.columns([2, 1, 1, 1.6, 3], vertical_alignment="bottom")
    last = bench.d_sae - 1
    asked = st.query_params.get("latent", "0")
    if not asked.isdecimal() or int(asked) > last:
        st.warning(markdown_text(f"There is no latent {asked}: choose 0 to {last}."))
    latent = int(box.number_input("Latent", 0, last, step=1, key="latent", bind="query-params") or 0)
    back.button("Previous", on_click=move, args=(latent - 1,), disabled=latent <= 0, width="stretch")
    on.button("Next", on_click=move, args=(latent + 1,), disabled=latent >= last, width="stretch")
    chance.button("Random alive", on_click=move_to_random, args=(bench,), icon=":material/casino:", width="stretch")
    return latent


def statistics_row(page: LatentPage) -> None:
    """The latent's figures, each with its definition."""
    for column, figure in zip(st.columns(len(STATISTICS)), STATISTICS, strict=True):
        column.metric(figure.label, figure.form.format(page.statistics[figure.key]), help=figure.help)


def contexts_tabs(contexts: list[Window], max_value: float) -> None:
    """Contexts by band."""
    breaks = st.toggle("Break lines where the text does", key="breaks")
    bands = list(dict.fromkeys(window.band for window in contexts))
    if not bands:
        st.caption("No context is stored.")
        return
    for band, tab in zip(bands, st.tabs(bands), strict=True):
        with tab:
            st.caption(f"Contexts: {band_label(band, bands)}.")
            st.html(contexts_html([window for window in contexts if window.band == band], max_value, breaks=breaks))


def tested_text(page: LatentPage, inspection: Inspection) -> float:
    """Show the person's text shaded by this latent; its largest value on a normal token."""
    values, largest = inspection.values(page.latent), largest_on(inspection, page.latent)
    st.html(wrapped(token_html(inspection.tokens, values, shade_scale(page, inspection))))
    n_active = int((values > 0).sum())
    share = f", {largest / page.statistics['max']:.0%} of its maximum" if page.alive else ""
    strongest = f"; strongest on a normal token {number(largest)}{share}" if largest else ""
    st.caption(f"Active on {n_active} of {len(values)} tokens{strongest}.")
    return largest


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


def steering_form(page: LatentPage) -> dict[str, Any] | None:
    """What to steer and how, once the person asks for it."""
    with st.form("steer", border=False):
        prompt = steering.prompt_box("steer_")
        strength = st.slider(
            "Strength, in multiples of q99.9",
            *STRENGTHS,
            DEFAULT_STRENGTH,
            0.25,
            key="steer_strength",
            help=f"Clamps the latent to this many times {number(page.statistics['q999'])}. 0 ablates it; below 0 "
            "pushes the other way. Well above 1 the text tends to fall apart.",
        )
        asked = {"prompt": prompt, "strength": strength, **steering.sampling_row("steer_")}
        clicked = st.form_submit_button("Generate both", icon=":material/play_arrow:")
    return asked if clicked and prompt.strip() else None


@st.fragment
def steer_panel(page: LatentPage) -> None:
    """The model's continuation as it is and with the latent clamped, from one seed."""
    st.subheader(
        "Steer",
        help="Holds the latent at one value on every token but the first, of the prompt and of what is generated; the "
        "part of the activation that the SAE does not explain stays as it is.",
    )
    if not page.alive:
        st.caption("Nothing to steer by: it never fired, so its strength has no unit.")
        return
    asked = steering_form(page)
    latent, job = st.session_state.get("steering", (None, None))
    if asked:
        if job is not None:
            job.cancel()
        latent, job = page.latent, of_tab(worker().steer(latent=page.latent, **asked))
        st.session_state["steering"] = latent, job
    if job is not None and latent == page.latent:
        steering.show([job], lambda jobs: texts_html(**jobs[0].texts), lambda job: steering_html(job.result()))
    link("steering", "More edits at once, conditions, sweeps", ":material/tune:", latents=str(page.latent))


def show(bench: Workbench, latent: int) -> None:
    """The whole page below the controls."""
    page, contexts = bench.page(latent), bench.windows(latent)
    if page.alive:
        statistics_row(page)
    else:
        st.info("This latent never fired on this text: there are no contexts, no values and nothing to explain.")
    st.subheader("Explanation")
    st.html(wrapped(explanations_html(page)))
    test_panel(page)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Contexts")
        contexts_tabs(contexts, page.statistics["max"])
    with right:
        st.subheader("Logits", help="What its decoder direction alone adds to each token's logit.")
        st.html(wrapped(logits_html(page)))
    steer_panel(page)
    st.download_button(
        "Download this card as HTML",
        static_page(f"Latent {latent} of {bench.hook_point}", feature_card_html(page, contexts)),
        f"latent-{latent}.html",
        "text/html",
        icon=":material/download:",
        on_click="ignore",
    )


bench = workbench()
latent = choose(bench)
st.title(f"Latent {latent}")
show(bench, latent)
