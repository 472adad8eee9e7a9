"""How fast a harvest goes: tokens and rows per second, what is left, bytes, padding."""

import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, time

from activations.batching import Batch
from activations.window import WindowRows
from store import layout
from store.files import disk_errors


class Pace:
    """How fast a harvest goes: in words for the bar, and a line of JSON per window beside the run."""

    def __init__(self, folder: Path, n_hook_points: int, window_rows: Sequence[int], missing: Sequence[int]) -> None:
        """The clock starts.

        Args:
            folder: of the run.
            n_hook_points: rows of each token.
            window_rows: tokens of each window.
            missing: the windows that are to be computed.
        """
        self.n_tokens = sum(window_rows[number] for number in missing)
        """To be computed."""
        self._there = sum(window_rows) - self.n_tokens
        self._folder, self._n_hook_points, self._n_windows = folder, n_hook_points, len(window_rows)
        self._started = perf_counter()
        self._done = self._padding = self._n_bytes = 0

    def see(self, batch: Batch) -> None:
        """Count a batch."""
        self._done += int(batch.mask.sum())
        self._padding += batch.n_padding

    @property
    def _figures(self) -> dict[str, float]:
        seconds = max(perf_counter() - self._started, 1e-9)
        tokens_per_s = self._done / seconds
        return {
            "tokens_per_s": round(tokens_per_s, 1),
            "rows_per_s": round(tokens_per_s * self._n_hook_points, 1),
            "n_tokens": self._there + self._done,
            "eta_s": round((self.n_tokens - self._done) / max(tokens_per_s, 1e-9), 1),
            "n_bytes": self._n_bytes,
            "padding_share": round(self._padding / max(self._done + self._padding, 1), 5),
        }

    def words(self) -> str:
        """For the end of the bar."""
        now = self._figures
        return (
            f"{now['tokens_per_s']:,.0f} tokens/s, {now['rows_per_s']:,.0f} rows/s, {now['n_bytes'] / 1e6:,.0f} MB, "
            f"padding {now['padding_share']:.1%}"
        )

    def log(self, window: WindowRows) -> None:
        """One line in the run's progress log."""
        self._n_bytes += sum(
            rows.vectors.nbytes + sum(column.nbytes for column in rows.columns.values())
            for rows in window.rows.values()
        )
        line = {"time": round(time(), 3), "window": window.number, "n_windows": self._n_windows}
        path = self._folder / layout.PROGRESS
        with disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | self._figures) + "\n")
