"""What the pages share: the workbench of this server, the last live results, and errors as one line."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from app.cards import markdown_text
from app.generator import Job, Worker
from app.inspection import Inspection
from app.workbench import Workbench
from store.errors import UsageError
from store.run import MANIFEST, Run, find_run

INDEX = "index"
"""Of the URL, where an index other than the server's is looked at."""
MODEL_SPINNER = "Running the model; the first time, loading it takes a moment …"
MAX_TEXT = 4_000
"""Characters accepted in a live box: far above a context, far below what would stall the server."""


ID = re.compile(r"[0-9a-f]{4,64}")
"""Of a run, or its start: what a URL may name. A path would open what lies elsewhere on the disk."""
LONGEST_S = 10.0
"""That a query of a page may take."""


@st.cache_resource(show_spinner="Opening the feature index …", max_entries=8)
def _open(root: str, index: str) -> Workbench:
    bench = Workbench.open(root, index)
    bench.index.timeout_s = LONGEST_S
    return bench


def root() -> Path:
    """The folder of all runs, which `MONOSEM_ROOT` names."""
    return Path(os.environ.get("MONOSEM_ROOT", "runs"))


def read_only() -> bool:
    """Whether nothing may be written or started from here, as `MONOSEM_READ_ONLY` says: pages leave such controls out.

    Running the model on a text is allowed: it leaves nothing behind.
    """
    return os.environ.get("MONOSEM_READ_ONLY") == "1"


def chosen_index() -> str:
    """The index looked at: the URL's, which stays through the session, or the one that `MONOSEM_INDEX` names.

    Raises:
        UsageError: the URL names none.
    """
    asked = st.query_params.get(INDEX) or st.session_state.get(INDEX)
    if asked and not ID.fullmatch(asked):
        raise UsageError(f"'{asked[:40]}' is no id of an index: choose one on Home, or leave it out of the address")
    if asked:
        st.session_state[INDEX] = st.query_params[INDEX] = asked
    return asked or os.environ.get("MONOSEM_INDEX", "latest")


def workbench() -> Workbench:
    """The workbench of the index that is looked at, one for the whole server, and one version of it: what is
    published while a page is made does not get into half of it.

    Raises:
        UsageError: there is no such index.
    """
    named = chosen_index()
    # By its id: what is newest, or begins so, may be another one tomorrow.
    is_id = bool(ID.fullmatch(named)) and (root() / "index" / named / MANIFEST).exists()
    return _open(str(root()), named if is_id else find_run(root(), named, "index").id).pinned()


@st.cache_resource(show_spinner=False, on_release=Worker.close, max_entries=4)
def _worker(root: Path, index: str) -> Worker:
    return Worker(root, index)


def worker() -> Worker:
    """The process that runs the model of the workbench, one for the whole server: whatever runs the model goes there.

    Raises:
        UsageError: there is no such index.
    """
    return worker_of(workbench().run)


def worker_of(index: Run) -> Worker:
    """The one of an index; at most four are kept, of those that were asked last. It may be asked for in any thread."""
    return _worker(index.root, index.id)


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
    """A box for a text of one's own; the last text inspected anywhere in this session with this index, if any.

    Args:
        label: what the box says above.
    """
    with st.form("inspect", border=False):
        text = st.text_area(label, st.session_state.get("inspected_text", ""), height=80, max_chars=MAX_TEXT)
        asked = st.form_submit_button("Run", icon=":material/play_arrow:")
    index = workbench().run.id
    if asked and text and text.strip():
        st.session_state.pop("inspection", None)
        with usage_errors(), st.spinner(MODEL_SPINNER):
            job = worker().inspect(text, losses=False)
            tell(job)
            st.session_state["inspection"] = index, job.result()
            st.session_state["inspected_text"] = text
    of, inspection = st.session_state.get("inspection", (None, None))
    # Latents of another dictionary have the same numbers, and nothing else in common.
    return inspection if of == index else None
