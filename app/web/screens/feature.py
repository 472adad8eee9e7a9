"""Feature: one latent with its explanation, contexts, distribution and logits, and live tests of it."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.cards import markdown_text, number, steering_html, texts_html, wrapped
from app.generator import Job, Stopped
from app.web.panels.contexts import contexts_panel
from app.web.panels.evidence import evidence_panel, explanation_panel
from app.web.panels.logits import logits_panel
from app.web.panels.moving import arrive, move, move_to_random
from app.web.panels.notes import notes_panel
from app.web.panels.related import related_panel
from app.web.panels.take import link_panel, take_panel
from app.web.panels.values import test_panel
from app.web.state import MAX_TEXT, MODEL_SPINNER, tell, workbench, worker
from app.workbench import Workbench
from store.errors import UsageError
from store.latents import LatentPage

STRENGTHS = (-2.0, 4.0)
DEFAULT_STRENGTH = 1.0
MAX_TOKENS = 200
LARGEST_SEED = 2**31 - 1
# Between two looks at a text that is being written. (Streamlit would show a docstring here on the page.)
POLL_SECONDS = 0.2


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
    if not asked.isdecimal() or int(asked) > last:
        st.warning(markdown_text(f"There is no latent {asked}: choose 0 to {last}."))
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
        prompt = st.text_area(
            "Prompt", "Tell me about your weekend.", height=80, max_chars=MAX_TEXT, key="steer_prompt"
        )
        strength = st.slider(
            "Strength, in multiples of q99.9",
            *STRENGTHS,
            DEFAULT_STRENGTH,
            0.25,
            key="steer_strength",
            help=f"Clamps the latent to this many times {number(page.statistics['q999'])}. 0 ablates it; below 0 "
            "pushes the other way. Well above 1 the text tends to fall apart.",
        )
        tokens, temperature, seed = st.columns(3)
        asked = {
            "prompt": prompt,
            "strength": strength,
            "n_tokens": tokens.number_input("Tokens", 1, MAX_TOKENS, 40, key="steer_tokens"),
            "temperature": temperature.number_input(
                "Temperature", 0.0, 2.0, 0.7, 0.1, key="steer_temperature", help="0 always takes the likeliest token."
            ),
            "seed": seed.number_input("Seed", 0, LARGEST_SEED, 0, key="steer_seed", help="The same for both texts."),
        }
        chat = st.checkbox(
            "As a chat message",
            value=True,
            key="steer_chat",
            help="Wraps the prompt as the model was trained to be asked.",
        )
        clicked = st.form_submit_button("Generate both", icon=":material/play_arrow:")
    return asked | {"chat": chat} if clicked and prompt.strip() else None


@st.fragment(run_every=POLL_SECONDS)
def being_written(job: Job) -> None:
    """Both texts as far as they are, again and again until the job has ended; then the page, once more."""
    if job.done:
        st.rerun()
    st.html(wrapped(texts_html(**job.texts)))
    left, right = st.columns([1, 5], vertical_alignment="center")
    left.button("Stop", on_click=job.cancel, icon=":material/stop:", width="stretch", key="steer_stop")
    n_written = sum(job.n_tokens.values())
    waiting = MODEL_SPINNER if job.started else "Waiting for its turn: the model writes one text at a time …"
    right.caption(f"{n_written} tokens of both texts" if n_written else waiting)


def outcome(job: Job) -> None:
    """What a job that has ended came to: both texts with what was done, or why not, and what was written before."""
    try:
        st.html(wrapped(steering_html(job.result())))
    except UsageError as error:
        (st.info if isinstance(error, Stopped) else st.error)(markdown_text(str(error)))
        if any(job.texts.values()):
            st.html(wrapped(texts_html(**job.texts)))


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
        latent, job = st.session_state["steering"] = page.latent, worker().steer(latent=page.latent, **asked)
    if job is not None and latent == page.latent:
        tell(job)
        if job.done:
            outcome(job)
        else:
            being_written(job)


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
    steer_panel(page)
    take_panel(bench, latent)


arrive()
bench = workbench()
latent = choose(bench)
st.title(f"Latent {latent}")
show(bench, latent)
