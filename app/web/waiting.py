"""Waiting for the worker without holding the page: what is asked stays asked, and can be stopped."""

from collections.abc import Callable
from typing import TypeVar

import streamlit as st

from app.cards import markdown_text
from app.generator import Job, Stopped
from app.web.state import MODEL_SPINNER, tell
from store.errors import UsageError

T = TypeVar("T")
# Between two looks at a job that runs. (Streamlit would show a docstring here on a page.)
POLL_SECONDS = 0.25
AT_ONCE_SECONDS = 0.4
KEPT = "asked of the worker"


def asked(name: str, question: tuple, ask: Callable[[], Job[T]]) -> None:
    """Ask, unless this was what was last asked under this name; what was asked before is dropped."""
    jobs = st.session_state.setdefault(KEPT, {})
    before, job = jobs.get(name, (None, None))
    if before == question:
        return
    if job is not None:
        job.cancel()
    jobs[name] = (question, ask())


def answered(name: str, question: tuple) -> Job | None:
    """The job of this very question; None where it was not asked."""
    before, job = st.session_state.get(KEPT, {}).get(name, (None, None))
    return job if before == question else None


def forget(name: str) -> None:
    """So that the same question is asked again."""
    st.session_state.get(KEPT, {}).pop(name, None)


def outcome(name: str, job: Job[T]) -> T | None:
    """What a job came to; None while it runs, where that is shown with a button to stop it, and where it failed, which
    is one line."""
    tell(job)
    if not job.done:
        try:
            return job.result(AT_ONCE_SECONDS)
        except TimeoutError:
            _running(name, job)
            return None
        except UsageError:
            pass
    try:
        return job.result()
    except Stopped:
        st.info("Stopped: run it again for the whole.")
    except UsageError as error:
        st.error(markdown_text(str(error)))
    return None


@st.fragment(run_every=POLL_SECONDS)
def _running(name: str, job: Job) -> None:
    """Again and again until the job has ended; then the page, once more."""
    if job.done:
        st.rerun()
    left, right = st.columns([1, 5], vertical_alignment="center")
    left.button("Stop", on_click=job.cancel, icon=":material/stop:", width="stretch", key=f"stop {name}")
    done, of = job.progress
    if of:
        right.progress(done / of, f"{done} of {of}")
    else:
        right.caption(MODEL_SPINNER if job.started else "Waiting for its turn: the model does one thing at a time …")
