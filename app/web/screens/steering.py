"""Steering lab: edits of several latents at once, beside the model as it is; what they do and cost; what was tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from app.cards import markdown_text
from app.cards_steering import LEGEND, being_written_html, sample_html
from app.generator import Job
from app.steering_settings import SteeringSettings, command, snippet
from app.web.jobs import of_tab
from app.web.panels import steering
from app.web.panels.steering_edits import edits_panel, forget_vector, numbers_of, refuse_number, refuse_url, state_of
from app.web.panels.steering_history import history_panel, keep, to_restore
from app.web.panels.steering_sweep import sweep_panel
from app.web.state import usage_errors, workbench, worker
from app.workbench import Workbench
from store.errors import UsageError

if TYPE_CHECKING:
    from app.steered import Steering

MAX_SAMPLES = 8
# Ends of what a URL may ask for. (Streamlit would show a docstring here on the page.)
SAMPLING = {
    "tokens": (1, steering.MAX_TOKENS),
    "temperature": (0, 2),
    "seed": (0, steering.LARGEST_SEED),
    "samples": (1, MAX_SAMPLES),
}


@dataclass
class Asked:
    """What was asked for last in this session."""

    settings: SteeringSettings
    jobs: "list[Job[Steering]]"
    index: str
    is_kept: bool = False

    @property
    def seeds(self) -> dict[int, int]:
        """Of each job, by its number."""
        return dict(zip((job.number for job in self.jobs), self.settings.seeds, strict=True))


def restore(settings: SteeringSettings) -> None:
    """Fill the boxes, which the URL follows; a vector is that of these settings, or none."""
    forget_vector()
    st.session_state.update(
        state_of(settings.edits)
        | {"prompt": settings.prompt, "tokens": settings.n_tokens, "temperature": settings.temperature}
        | {"seed": settings.seed, "samples": settings.n_samples, "chat": settings.chat}
    )


def settings_panel(bench: Workbench) -> SteeringSettings | None:
    """Everything that is asked for; None where it cannot be, which is said."""
    typed = st.text_input(
        "Latents",
        key="latents",
        bind="query-params",
        placeholder="such as 12, 35",
        help="Each gets a row of its own. All edits read the latents that were there before any of them.",
    )
    with usage_errors():
        latents = numbers_of(typed, "latent", bench.d_sae - 1)
        _refuse_url(latents)
        edits = edits_panel(bench, latents)
        left, right = st.columns(2, gap="medium")
        with left:
            prompt = steering.prompt_box(bind="query-params")
        with right:
            sampling = steering.sampling_row(bind="query-params")
            n_samples = st.number_input(
                "Samples",
                1,
                MAX_SAMPLES,
                1,
                key="samples",
                bind="query-params",
                help="Each from the next seed; a seed is the same for both texts.",
            )
        return SteeringSettings(prompt=prompt, edits=edits, n_samples=n_samples, **sampling)
    return None


def _refuse_url(latents: Sequence[int]) -> None:
    """Say what of the URL is none, and go on with what the boxes hold."""
    with usage_errors():
        refuse_url(st.query_params, latents)
        for name, ends in SAMPLING.items():
            refuse_number(st.query_params, name, *ends)


def ask(bench: Workbench, settings: SteeringSettings) -> Asked:
    """Begin all samples, in place of what is under way."""
    before: Asked | None = st.session_state.get("steered")
    if before is not None:
        steering.stop(before.jobs)
    jobs = [
        of_tab(
            worker().steer(
                settings.prompt,
                settings.edits,
                n_tokens=settings.n_tokens,
                temperature=settings.temperature,
                seed=seed,
                chat=settings.chat,
            )
        )
        for seed in settings.seeds
    ]
    st.session_state["steered"] = asked = Asked(settings, jobs, bench.run.id)
    return asked


def result_panel(bench: Workbench, asked: Asked) -> None:
    """The samples as far as they are; when all are there, they are kept, once."""

    def written(jobs: Sequence[Job]) -> str:
        return being_written_html({asked.seeds[job.number]: job.texts for job in jobs})

    st.subheader("Texts")
    steering.show(asked.jobs, written, lambda job: sample_html(job.result()))
    if not all(job.done for job in asked.jobs):
        return
    found = _found(asked)
    if found:
        st.caption(f"{markdown_text(found[0].told)}. {LEGEND}")
    if found and len(found) == len(asked.jobs) and not asked.is_kept:
        asked.is_kept = True
        with usage_errors():
            keep(bench, asked.settings, found)


def _found(asked: Asked) -> "list[Steering]":
    found = []
    for job in asked.jobs:
        try:
            found.append(job.result())
        except UsageError:
            # Said where the texts are shown.
            continue
    return found


def export_panel(bench: Workbench, settings: SteeringSettings) -> None:
    """The same texts, from Python and from the command line."""
    with st.expander("Reproduce this: Python and command line"):
        root = bench.run.root.resolve()
        st.code(snippet(settings, root, bench.run.id), language="python", wrap_lines=True)
        try:
            st.code(command(settings, root, bench.run.id), language="bash", wrap_lines=True)
        except UsageError as error:
            st.caption(markdown_text(str(error)))


bench = workbench()
st.title("Steering lab")
with usage_errors():
    if clicked := to_restore():
        restore(clicked)
settings = settings_panel(bench)
ready = settings is not None and bool(settings.edits) and bool(settings.prompt.strip())
if settings is not None and not settings.edits:
    st.info("Name at least one latent above, or upload a vector: the model is steered along them.")
if st.button("Generate both", icon=":material/play_arrow:", type="primary", disabled=not ready) and settings:
    ask(bench, settings)
asked: Asked | None = st.session_state.get("steered")
if asked is not None and asked.index == bench.run.id:
    result_panel(bench, asked)
if ready and settings is not None:
    export_panel(bench, settings)
    sweep_panel(bench, settings)
history_panel(bench)
