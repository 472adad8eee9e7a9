"""What a browser tab has asked of the worker: it is cancelled when the tab is closed."""

import threading
from typing import TypeVar, final

import streamlit as st

from app.generator import Job

T = TypeVar("T")


@final
class TabJobs:
    """The jobs of one tab that may still be under way."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._lock = threading.Lock()

    def add(self, job: Job) -> None:
        """Cancel it when the tab is closed."""
        with self._lock:
            self._jobs = [*(each for each in self._jobs if not each.done), job]

    def close(self) -> None:
        """Cancel those that have not ended."""
        with self._lock:
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.cancel()


@st.cache_resource(scope="session", on_release=TabJobs.close, show_spinner=False)
def _of_tab() -> TabJobs:
    """Streamlit releases it when the tab's connection ends: closed, reloaded, or its machine asleep."""
    return TabJobs()


def of_tab(job: Job[T]) -> Job[T]:
    """The job, which ends with this tab."""
    _of_tab().add(job)
    return job
