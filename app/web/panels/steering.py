"""What every page that steers shares: the prompt and how it is sampled, texts while they are written, their end."""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from app.cards import markdown_text, wrapped
from app.generator import Job, Stopped
from app.web.state import MAX_TEXT, MODEL_SPINNER, tell
from store.errors import UsageError

MAX_TOKENS = 200
LARGEST_SEED = 2**31 - 1
POLL_SECONDS = 0.2
"""Between two looks at a text that is being written."""
SILENT_SECONDS = 15.0
"""Without a word from the worker, before that is said."""
PROMPT = "Tell me about your weekend."


def prompt_box(prefix: str = "", **widget: Any) -> str:
    """What is continued."""
    return st.text_area("Prompt", PROMPT, height=80, max_chars=MAX_TEXT, key=f"{prefix}prompt", **widget) or ""


def sampling_row(prefix: str = "", **widget: Any) -> dict[str, Any]:
    """How it is continued, by the names of `Worker.steer`."""
    tokens, temperature, seed = st.columns(3)
    asked = {
        "n_tokens": tokens.number_input("Tokens", 1, MAX_TOKENS, 40, key=f"{prefix}tokens", **widget),
        "temperature": temperature.number_input(
            "Temperature",
            0.0,
            2.0,
            0.7,
            0.1,
            key=f"{prefix}temperature",
            help="0 always takes the likeliest token.",
            **widget,
        ),
        "seed": seed.number_input(
            "Seed", 0, LARGEST_SEED, 0, key=f"{prefix}seed", help="The same for both texts.", **widget
        ),
    }
    asked["chat"] = st.checkbox(
        "As a chat message",
        value=True,
        key=f"{prefix}chat",
        help="Wraps the prompt as the model was trained to be asked.",
        **widget,
    )
    return asked


def stop(jobs: Sequence[Job]) -> None:
    """End all of them, the last first, so that none begins when the one before it ends."""
    for job in reversed(jobs):
        job.cancel()


def show(jobs: Sequence[Job], written: Callable[[Sequence[Job]], str], ended: Callable[[Job], str]) -> None:
    """Jobs of one request: as far as they are, or what they came to.

    Args:
        jobs: in the order in which they are answered.
        written: what those have written that did not end well, as HTML.
        ended: one that ended well, as HTML.
    """
    tell(jobs[0])
    if all(job.done for job in jobs):
        _outcome(jobs, written, ended)
    else:
        _being_written(jobs, written)


@st.fragment(run_every=POLL_SECONDS)
def _being_written(jobs: Sequence[Job], written: Callable[[Sequence[Job]], str]) -> None:
    if all(job.done for job in jobs):
        st.rerun()
    st.html(wrapped(written([job for job in jobs if job.started] or jobs[:1])))
    left, right = st.columns([1, 5], vertical_alignment="center")
    left.button("Stop", on_click=stop, args=(jobs,), icon=":material/stop:", width="stretch", key="steer_stop")
    right.caption(_told(jobs))


def _told(jobs: Sequence[Job]) -> str:
    """How far it is, or what it waits for."""
    now = next(job for job in jobs if not job.done) if not all(job.done for job in jobs) else jobs[-1]
    n_written = sum(sum(job.n_tokens.values()) for job in jobs)
    if now.started and n_written and now.silent_seconds > SILENT_SECONDS:
        return (
            f"Nothing was heard of the model for {now.silent_seconds:.0f} s. Stop ends this; a model that does not "
            "answer that is ended too, and the next request starts another."
        )
    if n_written:
        of = f", sample {jobs.index(now) + 1} of {len(jobs)}" if len(jobs) > 1 else ""
        return f"{n_written} tokens of both texts{of}"
    return MODEL_SPINNER if now.started else "Waiting for its turn: the model writes one text at a time …"


def _outcome(jobs: Sequence[Job], written: Callable[[Sequence[Job]], str], ended: Callable[[Job], str]) -> None:
    shown, refused = "", dict[str, bool]()
    for job in jobs:
        try:
            job.result()
        except UsageError as error:
            refused[str(error)] = isinstance(error, Stopped)
            shown += written([job]) if any(job.texts.values()) else ""
        else:
            shown += ended(job)
    for line, was_asked in list(refused.items())[:1]:
        (st.info if was_asked else st.error)(markdown_text(line))
    if shown:
        st.html(wrapped(shown))
    if any(job.stopping for job in jobs):
        _being_dropped(jobs)


@st.fragment(run_every=POLL_SECONDS)
def _being_dropped(jobs: Sequence[Job]) -> None:
    """Until the worker has dropped what was stopped, or was killed because it did not; then the page, once more."""
    if not any(job.stopping for job in jobs):
        st.rerun()
    st.caption("Stopping: the model finishes its token …")
