"""The second half of a harvest: windows through the model and onto the disk, as many as are not there yet."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from activations.batching import Batch
from activations.harvest_config import HarvestConfig
from activations.hook_point import HookPoint
from activations.lm import LanguageModel
from activations.pace import Pace
from activations.prepare import heldout_documents, read_window
from activations.progress import Progress
from activations.shard_writer import Entry, ShardWriter
from activations.statistics import Group, Moments, by_group, merged, read_statistics, write_statistics
from activations.window import WindowBuilder, WindowJob, compute_window, sink_norms
from store import layout
from store.errors import DiskFull, UsageError
from store.files import is_as_written, read_json
from store.shards import STORED_AS, TOKEN_CLASSES

ROW_BYTES = 16
"""Bytes of a row's other columns, at most: what a shard takes beyond its vectors."""


@dataclass(frozen=True)
class Harvest:
    """A harvest whose text is prepared."""

    folder: Path
    lm: LanguageModel
    window: WindowJob
    window_rows: tuple[int, ...]
    """Rows of each window."""
    shard_rows: int
    sink_norm_ratio: float
    metadata: Mapping[str, str]
    """Goes into every shard."""

    @classmethod
    def of(
        cls, folder: Path, cfg: HarvestConfig, lm: LanguageModel, hook_points: tuple[HookPoint, ...], rows: list[int]
    ) -> "Harvest":
        """The job of a config; `rows` are those of each window."""
        window = cfg.window_job(hook_points)
        metadata = {"model": lm.weights_hash, "tokenizer": lm.tokenizer.fingerprint}
        return cls(folder, lm, window, tuple(rows), cfg.shard_rows, cfg.sink_norm_ratio, metadata)

    def writer(self, sinks: Mapping[str, float]) -> ShardWriter:
        """Writes this harvest's windows."""
        heldout = heldout_documents(self.folder)
        return ShardWriter(self.folder, self.window.dtype, self.shard_rows, sinks, heldout, self.metadata)

    def builder(
        self,
        number: int,
        hook_points: tuple[HookPoint, ...] | None = None,
        memory: dict[str, torch.Tensor] | None = None,
    ) -> WindowBuilder:
        """A window about to be computed, at all hook points or some; `memory` as for `WindowBuilder`."""
        job = self.window if hook_points is None else replace(self.window, hook_points=hook_points)
        return WindowBuilder(self.lm, number, read_window(self.folder, number), job, memory)


def keep_windows(job: Harvest, progress: Progress) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Compute and store every window that is not there; the harvest's figures, and its shards' manifest entries.

    Raises:
        UsageError: a value that cannot be stored, too little room, or too little memory on the device.
    """
    missing = _missing(job, progress)
    needed = _needed_bytes(job, missing)
    _check_room(job.folder, needed)
    try:
        _compute(job, missing, progress)
    except DiskFull as error:
        left = _needed_bytes(job, [number for number in missing if not layout.receipt(job.folder, number).exists()])
        raise UsageError(f"{error}. What is left to harvest needs about {left:,} bytes") from error
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{job.lm.device} ran out of memory: choose a smaller --batch-size or --n-ctx") from error
    receipts = [read_json(layout.receipt(job.folder, number)) for number in range(len(job.window_rows))]
    n_tokens, n_padding = sum(job.window_rows), sum(receipt["n_padding"] for receipt in receipts)
    groups = merge_statistics(job.folder)
    known = {name: entry for receipt in receipts for name, entry in receipt["files"].items()}
    found = {
        "padding_share": n_padding / (n_tokens + n_padding),
        "n_bytes": sum(entry["n_bytes"] for entry in known.values() if "d_in" in entry),
        "statistics_of": "all rows",
        "hook_points": _figures(groups, receipts[0]["sink_norms"]),
    }
    return found, known


def sample_first_window(job: Harvest) -> tuple[dict[str, Any], dict[str, Entry]]:
    """What a harvest that stores no vector must know all the same: widths, the bound for sinks, some statistics."""
    window = compute_window(job.lm, 0, read_window(job.folder, 0), job.window)
    sinks = sink_norms(window, job.sink_norm_ratio)
    groups = by_group(window.marked(sinks), job.window.dtype, heldout_documents(job.folder))
    write_statistics(job.folder / layout.STATISTICS, merged([groups]))
    share = window.n_padding / (window.n_rows + window.n_padding)
    return {
        "padding_share": share,
        "n_bytes": 0,
        "statistics_of": f"the first {window.n_rows} tokens",
        "hook_points": _figures(groups, sinks),
    }, {}


def merge_statistics(folder: Path) -> dict[Group, Moments]:
    """All windows' statistics as one file, and what it says."""
    paths = layout.all_window_statistics(folder)
    groups = merged(read_statistics(path) for path in paths)
    write_statistics(folder / layout.STATISTICS, groups)
    return groups


def _figures(groups: Mapping[Group, Moments], sinks: Mapping[str, float]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, sink_norm in sinks.items():
        mine = {group[1:]: found for group, found in groups.items() if group[0] == name}
        figures[name] = {
            "d_in": max(len(found.mean) for found in mine.values()),
            "sink_norm": sink_norm,
            "n_rows": {
                token_class: sum(found.n for group, found in mine.items() if group[1] == token_class)
                for token_class in TOKEN_CLASSES
            },
        }
    return figures


def _missing(job: Harvest, progress: Progress) -> list[int]:
    """Windows without a receipt, or whose shards are not what it says."""
    numbers = range(len(job.window_rows))
    there = [number for number in numbers if layout.receipt(job.folder, number).exists()]
    shown = progress(there, len(there), "check what is there already") if there else there
    whole = {number for number in shown if _is_whole(job.folder, number)}
    return [number for number in numbers if number not in whole]


def _is_whole(folder: Path, number: int) -> bool:
    try:
        files = read_json(layout.receipt(folder, number))["files"]
    except UsageError:
        # Half a receipt is none.
        return False
    return all(is_as_written(folder / name, entry) for name, entry in files.items())


def _needed_bytes(job: Harvest, missing: list[int]) -> int:
    n_rows = sum(job.window_rows[number] for number in missing)
    if not n_rows:
        return 0
    captured = job.lm.capture(torch.zeros(1, 2, dtype=torch.long), job.window.hook_points)
    itemsize = STORED_AS[job.window.dtype].itemsize
    return sum(n_rows * (x[0, 0].numel() * itemsize + ROW_BYTES) for x in captured.values())


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"this harvest needs about {needed:,} bytes more, the disk of {folder} has {free:,} free: make room, take "
            "fewer --n-tokens or --hook-points, or store none with --keep-activations none"
        )


def recorded_sinks(folder: Path) -> dict[str, float] | None:
    """By hook point, the norm above which a token is a sink; None before the first window is done."""
    for path in layout.receipts(folder):
        with suppress(UsageError):
            return read_json(path)["sink_norms"]
    return None


def _compute(job: Harvest, missing: list[int], progress: Progress) -> None:
    sinks = recorded_sinks(job.folder)
    pace = Pace(job.folder, len(job.window.hook_points), job.window_rows, missing)
    first, *others = job.window.hook_points
    label = f"harvest {first.name}" + (f" and {len(others)} more" if others else "")
    steps = progress(_steps(job, missing), pace.n_tokens, label, weigh=_weight, note=pace.words)
    with ExitStack() as stack:
        writer: ShardWriter | None = None
        for builder, batch in steps:
            builder.add(batch)
            pace.see(batch)
            if builder.complete:
                window = builder.result()
                if writer is None:
                    sinks = sinks or sink_norms(window, job.sink_norm_ratio)
                    writer = stack.enter_context(job.writer(sinks))
                writer.submit(window)
                pace.log(window)


def _steps(job: Harvest, missing: list[int]) -> Iterator[tuple[WindowBuilder, Batch]]:
    # One window is written while the next one is computed, so that two are in memory.
    memory: tuple[dict[str, torch.Tensor], ...] = ({}, {})
    for place, number in enumerate(missing):
        builder = job.builder(number, memory=memory[place % 2])
        for batch in builder.batches:
            yield builder, batch


def _weight(step: tuple[WindowBuilder, Batch]) -> int:
    return int(step[1].mask.sum())
