"""Feature: one latent with its explanation, contexts, distribution and logits, and live tests of it."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.cards import markdown_text, number, steering_html, texts_html
from app.web.jobs import of_tab
from app.web.navigation import link
from app.web.panels import steering
from app.web.panels.contexts import contexts_panel
from app.web.panels.evidence import evidence_panel, explanation_panel
from app.web.panels.logits import logits_panel
from app.web.panels.moving import arrive, move, move_to_random
from app.web.panels.notes import notes_panel
from app.web.panels.related import related_panel
from app.web.panels.take import link_panel, take_panel
from app.web.panels.values import test_panel
from app.web.state import workbench, worker_of
from app.whole_numbers import MOST_DIGITS, whole
from app.workbench import Workbench
from store.latents import LatentPage

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


def choose(bench: Workbench) -> int:
    """The latent that the URL names; the controls change both."""
    last = bench.d_sae - 1
    asked = st.query_params.get("latent", "0")
    if len(asked) > MOST_DIGITS:
        # The box would take thousands of digits for an infinite number: it is drawn without them.
        st.session_state["no latent"] = asked
        del st.query_params["latent"]
        st.rerun()
    asked = st.session_state.pop("no latent", asked)
    if whole(asked, last) is None:
        st.warning(markdown_text(f"There is no latent {asked[:40]}: choose 0 to {last}."))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.number_input("Latent", 0, last, step=1, key="latent", bind="query-params", width=170)
        latent = int(chosen or 0)
        st.button("Previous", on_click=move, args=(latent - 1,), disabled=latent <= 0, shortcut="P")
        st.button("Next", on_click=move, args=(latent + 1,), disabled=latent >= last, shortcut="N")
        st.button("Random alive", on_click=move_to_random, args=(bench,), icon=":material/casino:", shortcut="X")
        link_panel(bench)
    return latent


def statistics_row(page: LatentPage) -> None:
    """The latent's figures, each with its definition."""
    for column, figure in zip(st.columns(len(STATISTICS)), STATISTICS, strict=True):
        column.metric(figure.label, figure.form.format(page.statistics[figure.key]), help=figure.help)


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
def steer_panel(bench: Workbench, page: LatentPage) -> None:
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
    here = bench.run.id, page.latent
    of, job = st.session_state.get("steering", (None, None))
    if asked:
        if job is not None:
            job.cancel()
        of, job = here, of_tab(worker_of(bench.run).steer(latent=page.latent, **asked))
        st.session_state["steering"] = of, job
    if job is not None and of == here:
        steering.show([job], lambda jobs: texts_html(**jobs[0].texts), lambda job: steering_html(job.result()))
    link("steering", "More edits at once, conditions, sweeps", ":material/tune:", latents=str(page.latent))


def show(bench: Workbench, latent: int) -> None:
    """The whole page below the controls."""
    page = bench.page(latent)
    if page.alive:
        statistics_row(page)
    else:
        st.info("This latent never fired on this text: there are no contexts, no values and nothing to explain.")
    left, right = st.columns([3, 2], gap="large")
    with left:
        is_shown = explanation_panel(page)
    with right:
        notes_panel(bench, latent)
    if is_shown:
        evidence_panel(bench, page)
    test_panel(page)
    left, right = st.columns([3, 2], gap="large")
    with left:
        contexts_panel(bench, page)
    with right:
        logits_panel(bench, page)
    related_panel(bench, page)
    steer_panel(bench, page)
    take_panel(bench, latent)


arrive()
bench = workbench()
latent = choose(bench)
st.title(f"Latent {latent}")
show(bench, latent)
