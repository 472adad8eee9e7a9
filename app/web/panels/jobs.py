"""What is being made: jobs in the background with their progress, and commands that were started elsewhere."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import streamlit as st

from app import jobs
from app.cards import markdown_text
from app.jobs import Job
from app.spending import spent_by
from app.web.navigation import SCREENS, link
from app.web.state import read_only, usage_errors
from store.run import Run
from store.under_way import Survey, at_work, owner, survey

POLL_SECONDS, IDLE_SECONDS = 2, 10
BUSY = "jobs_busy"
SHOWN_ENDED = 12
"""Jobs that have ended and are listed: the newest."""
FORECAST = "--dry-run"
BUSY_ICON = ":material/hourglass_top:"
SIGNS = {
    "starting": f"{BUSY_ICON} starting",
    "running": f"{BUSY_ICON} running",
    "finished": "✓ finished",
    "failed": "✗ failed",
    "stopped": "■ stopped",
    "killed": "✗ killed",
    "elsewhere": "? on another machine",
}


def jobs_panel(root: Path, *, all_of_them: bool = False) -> None:
    """Everything in progress, looked at again every two seconds while there is anything; with `all_of_them` also what
    has ended."""
    st.session_state[BUSY] = _busy(jobs.jobs(root), survey(root))
    seconds = POLL_SECONDS if st.session_state[BUSY] else IDLE_SECONDS
    st.fragment(_panel, run_every=seconds)(root, all_of_them)


def elsewhere(seen: Survey, found: Sequence[Job]) -> list[Run]:
    """Unfinished runs that a process is making, or may be, which none of the jobs is."""
    own = {job.pid for job in found if job.state in jobs.ALIVE}
    others = [run for run in seen.unfinished if (by := owner(run)) and by.pid not in own]
    return [run for run in others if at_work(run) is not False]


def _panel(root: Path, all_of_them: bool) -> None:
    found, seen = jobs.jobs(root), survey(root)
    if _busy(found, seen) != st.session_state[BUSY]:
        st.rerun()  # what was made is on the rest of the page, and what has begun is looked at more often
    alive = [job for job in found if job.state in jobs.ALIVE]
    runs = elsewhere(seen, found)
    for job in alive:
        _alive(root, job, seen)
    for run in runs:
        _elsewhere(run)
    if not alive and not runs:
        st.caption("Nothing is in progress.")
    if all_of_them:
        # A forecast is told beside the form that asked for it.
        ended = [job for job in found if job.state not in jobs.ALIVE and FORECAST not in job.argv]
        for job in ended[:SHOWN_ENDED]:
            _ended(root, job, {each.goes_on_from for each in found})


def _busy(found: Sequence[Job], seen: Survey) -> frozenset[str]:
    """Names of all that is in progress."""
    alive = (job.id for job in found if job.state in jobs.ALIVE)
    return frozenset((*alive, *(run.id for run in elsewhere(seen, found))))


def _alive(root: Path, job: Job, seen: Survey) -> None:
    with st.container(border=True):
        _title(job, f"since {_ago(job.started_at)}")
        told = job.progress
        if told is None:
            st.progress(0.0, "Loading …")
        else:
            left = told.seconds_left
            pace = "" if left is None or told.share == 1 else f" · about {_long(left)} left at this pace"
            note = f" · {told.note}" if told.note else ""
            st.progress(told.share, markdown_text(f"{told.stage}: {told.done:,} of {told.total:,}{pace}{note}"))
        spent = spent_by(root, [run.id for run in seen.unfinished if (by := owner(run)) and by.pid == job.pid])
        if spent:
            st.caption(markdown_text(f"Language models, in this stage: {spent}"))
        if not read_only():
            if job.stop_asked:
                st.caption("It was asked to stop, and ends as soon as it can.")
            label = "End it now" if job.stop_asked else "Stop"
            about = "What is finished stays; the same command goes on from there."
            st.button(label, key=f"stop {job.id}", icon=":material/stop:", help=about, on_click=_stop, args=(root, job))
        _output(job)


def _ended(root: Path, job: Job, gone_on_from: set[str | None]) -> None:
    with st.container(border=True):
        _title(job, f"started {_ago(job.started_at)} ago")
        if job.state != "finished":
            st.caption(markdown_text(job.last_line or "It has printed nothing."))
        if not read_only():
            with st.container(horizontal=True):
                _buttons(root, job, gone_on_from)
        _output(job)


def _buttons(root: Path, job: Job, gone_on_from: set[str | None]) -> None:
    """What may be done with a job that has ended."""
    if job.state in jobs.LEFT and job.id not in gone_on_from:
        about = "Gives the same command again: it goes on from what is finished."
        icon = ":material/play_arrow:"
        st.button("Go on", key=f"resume {job.id}", icon=icon, help=about, on_click=_resume, args=(root, job))
    about = "With what it printed. The runs it made stay."
    st.button("Take off the list", key=f"forget {job.id}", help=about, on_click=_forget, args=(root, job))


def _elsewhere(run: Run) -> None:
    by = owner(run)
    who = f"process {by.pid} on {by.node}" if by else "a process of its own"
    sure = "" if at_work(run) else " (another machine: whether it still runs cannot be told from here)"
    with st.container(border=True):
        st.markdown(f"**{BUSY_ICON} {markdown_text(f'{run.kind} {run.id}')}**")
        about = f"Started elsewhere: {who}, {_ago(run.manifest['started_at'])} ago{sure}."
        st.caption(markdown_text(f"{about} It is stopped where it was started."))
        if run.kind == "sae" and "training" in SCREENS:
            link("training", "Training curves", ":material/show_chart:", runs=run.id)


def _title(job: Job, when: str) -> None:
    st.markdown(f"**{SIGNS[job.state]}** · {markdown_text(f'{job.argv[0]}, {when}')}")


def _output(job: Job) -> None:
    with st.expander("Command and output"):
        st.code(job.command, language="bash", wrap_lines=True)
        st.code("\n".join(job.tail()) or "nothing yet", language=None)


def _stop(root: Path, job: Job) -> None:
    with usage_errors():
        jobs.stop(root, job.id)


def _resume(root: Path, job: Job) -> None:
    with usage_errors():
        jobs.resume(root, job.id)


def _forget(root: Path, job: Job) -> None:
    with usage_errors():
        jobs.forget(root, job.id)


def _ago(at: str) -> str:
    return _long((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())


def _long(seconds: float) -> str:
    """A time in whole seconds, minutes or hours."""
    whole = timedelta(seconds=max(0, round(seconds)))
    if whole < timedelta(minutes=2):
        return f"{whole.seconds} s"
    if whole < timedelta(hours=3):
        return f"{whole.seconds // 60} min"
    return f"{round(whole.total_seconds() / 3600):,} h"
