"""Windows of a harvest that stored no vector, computed again whenever they are read."""

from functools import cached_property

import numpy as np

from activations.harvest_config import HarvestConfig, recorded_config
from activations.lm import LanguageModel
from activations.models import load_recorded
from activations.prepare import read_window
from activations.window import WindowJob, compute_window, plan_window, with_sinks
from store import layout
from store.files import read_json
from store.run import Run
from store.shards import Rows


class Recomputer:
    """One hook point of a harvest, window by window through the model it was made with."""

    def __init__(self, run: Run, hook_point: str) -> None:
        """Nothing is loaded yet."""
        self._run, self._hook_point = run, hook_point
        self._classes: dict[int, np.ndarray] = {}
        self._windows = read_json(run.folder / layout.TEXT)["windows"]

    @property
    def n_windows(self) -> int:
        """How many there are."""
        return len(self._windows)

    def n_rows(self, window: int) -> int:
        """Tokens of a window."""
        return self._windows[window]["n_rows"]

    def rows(self, window: int) -> Rows:
        """A window's vectors and columns, as a harvest that stores them has them on disk."""
        sequences = read_window(self._run.folder, window)
        done = compute_window(self._lm, window, sequences, self._job)
        sink_norm = self._run.results["hook_points"][self._hook_point]["sink_norm"]
        rows = done.marked({self._hook_point: sink_norm})[self._hook_point]
        self._classes[window] = rows.columns["token_class"]
        return rows

    def columns(self, window: int) -> dict[str, np.ndarray]:
        """A window's columns without its vectors: until it was computed once, classes are as the text tells them, and
        first positions are the only sinks."""
        plan = plan_window(window, read_window(self._run.folder, window), self._cfg.seed)
        if window in self._classes:
            return {**plan.columns, "token_class": self._classes[window]}
        return with_sinks(plan.columns, 0.0, np.inf)

    @cached_property
    def _lm(self) -> LanguageModel:
        return load_recorded(self._run)

    @cached_property
    def _cfg(self) -> HarvestConfig:
        return recorded_config(self._run)

    @cached_property
    def _job(self) -> WindowJob:
        return self._cfg.window_job((self._lm.hook_point(self._hook_point),))
