"""Windows of a harvest that stored no vector, computed again whenever they are read."""

from collections.abc import Sequence
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
    """Hook points of a harvest, window by window through the model it was made with: one pass for all of them."""

    def __init__(self, run: Run, hook_points: Sequence[str]) -> None:
        """Nothing is loaded yet."""
        self._run, self._hook_points = run, tuple(hook_points)
        self._classes: dict[tuple[int, str], np.ndarray] = {}
        self._waiting: dict[tuple[int, str], Rows] = {}
        """Of the window computed last, the hook points that were not asked for yet."""
        self._windows = read_json(run.folder / layout.TEXT)["windows"]

    @property
    def n_windows(self) -> int:
        """How many there are."""
        return len(self._windows)

    def n_rows(self, window: int) -> int:
        """Tokens of a window."""
        return self._windows[window]["n_rows"]

    def rows(self, window: int, hook_point: str) -> Rows:
        """A window's vectors and columns, as a harvest that stores them has them on disk."""
        rows = self._waiting.pop((window, hook_point), None)
        if rows is None:
            computed = self._computed(window)
            rows = computed.pop((window, hook_point))
            self._waiting = computed
        return rows

    def columns(self, window: int, hook_point: str) -> dict[str, np.ndarray]:
        """A window's columns without its vectors: until it was computed once, classes are as the text tells them, and
        first positions are the only sinks."""
        plan = plan_window(window, read_window(self._run.folder, window), self._cfg.seed)
        if (window, hook_point) in self._classes:
            return {**plan.columns, "token_class": self._classes[window, hook_point]}
        return with_sinks(plan.columns, 0.0, np.inf)

    def _computed(self, window: int) -> dict[tuple[int, str], Rows]:
        """The window at every hook point."""
        done = compute_window(self._lm, window, read_window(self._run.folder, window), self._job)
        sinks = {name: self._run.results["hook_points"][name]["sink_norm"] for name in self._hook_points}
        rows = {(window, name): found for name, found in done.marked(sinks).items()}
        self._classes |= {key: found.columns["token_class"] for key, found in rows.items()}
        return rows

    @cached_property
    def _lm(self) -> LanguageModel:
        return load_recorded(self._run)

    @cached_property
    def _cfg(self) -> HarvestConfig:
        return recorded_config(self._run)

    @cached_property
    def _job(self) -> WindowJob:
        return self._cfg.window_job(tuple(self._lm.hook_point(name) for name in self._hook_points))
