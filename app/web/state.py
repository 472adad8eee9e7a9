"""What the pages share: the workbench of this server, the last live results, and errors as one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from app.cards import markdown_text
from app.generator import Job, Worker
from app.inspection import Inspection
from app.workbench import Workbench
from store.errors import UsageError

INDEX = "index"
"""Of the URL, where an index other than the server's is looked at."""
MODEL_SPINNER = "Running the model; the first time, loading it takes a moment …"
MAX_TEXT = 4_000
"""Characters accepted in a live box: far above a context, far below what would stall the server."""


@st.cache_resource(show_spinner="Opening the feature index …", max_entries=8)
def _open(root: str, index: str) -> Workbench:
    return Workbench.open(root, index)


def root() -> Path:
    """The folder of all runs, which `MONOSEM_ROOT` names."""
    return Path(os.environ.get("MONOSEM_ROOT", "runs"))


def read_only() -> bool:
    """Whether nothing may be written or started from here, as `MONOSEM_READ_ONLY` says: pages leave such controls out.

    Running the model on a text is allowed: it leaves nothing behind.
    """
    return os.environ.get("MONOSEM_READ_ONLY") == "1"


def chosen_index() -> str:
    """The index looked at: the URL's, which stays through the session, or the one that `MONOSEM_INDEX` names."""
    asked = st.query_params.get(INDEX) or st.session_state.get(INDEX)
    if asked:
        st.session_state[INDEX] = st.query_params[INDEX] = asked
    return asked or os.environ.get("MONOSEM_INDEX", "latest")


def workbench() -> Workbench:
    """The workbench of the index that is looked at, one for the whole server, and one version of it: what is
    published while a page is made does not get into half of it.

    Raises:
        UsageError: there is no such index.
    """
    return _open(str(root()), chosen_index()).pinned()


@st.cache_resource(show_spinner=False, on_release=Worker.close, max_entries=2)
def _worker(root: Path, index: str) -> Worker:
    return Worker(root, index)


def worker() -> Worker:
    """The process that runs the model of the workbench, one for the whole server and at most two in
    all: whatever runs the model goes there.

    Raises:
        UsageError: there is no such index.
    """
    run = workbench().run
    return _worker(run.root, run.id)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Show what the person can fix as one line; anything else keeps its traceback."""
    try:
        yield
    except UsageError as error:
        st.error(markdown_text(str(error)))


def tell(job: Job) -> None:
    """Say what became of the worker before this job, if anything did."""
    if job.note:
        st.info(markdown_text(job.note))


def inspect_box(label: str) -> Inspection | None:
    """A box for a text of one's own; the last text inspected anywhere in this session, if any.

    Args:
        label: what the box says above.
    """
    with st.form("inspect", border=False):
        text = st.text_area(label, st.session_state.get("inspected_text", ""), height=80, max_chars=MAX_TEXT)
        asked = st.form_submit_button("Run", icon=":material/play_arrow:")
    if asked and text and text.strip():
        st.session_state.pop("inspection", None)
        with usage_errors(), st.spinner(MODEL_SPINNER):
            job = worker().inspect(text, losses=False)
            tell(job)
            st.session_state["inspection"] = job.result()
            st.session_state["inspected_text"] = text
    return st.session_state.get("inspection")
