"""Mend a finished harvest: what is broken or missing is made again, alone, and everything else is left as it is."""

import logging
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activations.batching import batches
from activations.harvest_config import recorded_config
from activations.keep import Harvest, merge_statistics, sample_first_window
from activations.models import load_recorded
from activations.prepare import heldout_documents, prepare, read_window
from activations.progress import Progress, no_progress
from activations.statistics import by_group, write_statistics
from activations.text import read_sources, sources_hash
from activations.window import WindowRows
from store import layout
from store.errors import UsageError
from store.files import file_entry, is_as_written, read_json, write_json
from store.run import MANIFEST, Run, locked
from store.shards import ROW_COLUMNS, Rows, Shard, as_torch

log = logging.getLogger(__name__)
ROUNDING = 0.02
"""Largest difference from vectors that are still there, as a share of the largest of them, that another machine's
rounding explains."""


@dataclass
class Damage:
    """Broken files, sorted by what must run again."""

    text: list[str] = field(default_factory=list)
    shards: dict[int, list[str]] = field(default_factory=dict)
    """By window."""
    statistics: set[int] = field(default_factory=set)
    """Windows whose statistics are broken."""
    receipts: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, broken: Iterable[str]) -> "Damage":
        """Sort the names."""
        damage = cls()
        for name in broken:
            if layout.TEXT_NAME.match(name):
                damage.text.append(name)
            elif match := layout.SHARD_NAME.match(name):
                damage.shards.setdefault(int(match["window"]), []).append(name)
            elif match := layout.WINDOW_STATISTICS_NAME.match(name):
                damage.statistics.add(int(match["window"]))
            elif match := layout.RECEIPT_NAME.match(name):
                damage.receipts.add(int(match["window"]))
        return damage


def repair(run: Run, progress: Progress = no_progress) -> list[str]:
    """Make a harvest's broken and missing files again; their names, none where all are whole.

    Raises:
        UsageError: the model or the text is not what the harvest was made from, or somebody else is at it.
    """
    if run.kind != "activations":
        raise UsageError(f"{run.folder} is a run of kind {run.kind}: only a harvest can be mended; make it again")
    with locked(run.folder):
        broken = run.broken_files(progress)
        if broken:
            _Repair(run, progress).mend(broken)
        return broken


class _Repair:
    """One run being mended."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run, self._progress = run, progress
        self._files: dict[str, dict[str, Any]] = run.manifest["files"]
        self._cfg = recorded_config(run)
        self._sinks = {name: figures["sink_norm"] for name, figures in run.results["hook_points"].items()}

    def mend(self, broken: list[str]) -> None:
        """What later files are made from comes first; the manifest last."""
        damage = Damage.of(broken)
        if damage.text:
            self._mend_text(damage.text)
        if damage.shards:
            self._mend_shards(damage.shards)
        # Where shards came out otherwise in their last bits, all that was said of them is said again.
        changed = {window for window, names in damage.shards.items() if self._renewed(names)}
        for window in sorted(damage.statistics | changed):
            self._mend_window_statistics(window)
            changed |= {window} if self._renewed([self._name(layout.window_statistics, window)]) else set()
        for window in sorted(damage.receipts | changed):
            self._mend_receipt(window)
            self._renewed([self._name(layout.receipt, window)])
        if layout.STATISTICS in broken or changed:
            self._mend_statistics()
            self._renewed([layout.STATISTICS])
        self._run.manifest["mended"] = [*self._run.manifest.get("mended", []), *broken]
        write_json(self._run.folder / MANIFEST, self._run.manifest)

    def _name(self, place: Any, window: int) -> str:
        return place(self._run.folder, window).relative_to(self._run.folder).as_posix()

    def _renewed(self, names: list[str]) -> bool:
        """Enter the files as they are now; whether any differs from what it was."""
        differ = []
        for name in names:
            found = file_entry(self._run.folder / name)
            if found.sha256 != self._files[name]["sha256"]:
                differ.append(name)
                self._files[name] = self._files[name] | found._asdict()
        if differ:
            log.warning("made again with other last bits than before: %s", ", ".join(differ))
        return bool(differ)

    def _mend_text(self, broken: list[str]) -> None:
        """Read and tokenize again, elsewhere, and take over what is broken, if it is what it was."""
        cfg, folder = self._cfg, self._run.folder
        sources = read_sources(cfg.text)
        if sources_hash(sources) != self._run.same["text"]:
            raise UsageError(
                f"{', '.join(broken)} must be made again from {cfg.text.corpus}, which is not what it was: bring the "
                "old text back, or harvest anew"
            )
        tokenizer = load_recorded(self._run).tokenizer
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".mend-") as scratch:
            made = Path(scratch)
            prepare(made, tokenizer, sources, cfg.text, cfg.n_ctx, cfg.window_rows, self._progress)
            other = [name for name in broken if not is_as_written(made / name, self._files[name])]
            if other:
                raise UsageError(
                    f"{', '.join(other)} came out otherwise than before, by other versions of the libraries: nothing "
                    "was changed; harvest anew"
                )
            for name in broken:
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(made / name, folder / name)

    def _mend_shards(self, broken: dict[int, list[str]]) -> None:
        job = self._job()
        with job.writer(self._sinks) as writer:
            for number in self._progress(sorted(broken), len(broken), "harvest again what is broken"):
                only = broken[number]
                touched = tuple(h for h in job.window.hook_points if any(n.startswith(f"{h.name}/") for n in only))
                builder = job.builder(number, touched)
                for batch in builder.batches:
                    builder.add(batch)
                window = builder.result()
                self._compare(window, only)
                writer.submit(window, only)

    def _job(self) -> Harvest:
        lm = load_recorded(self._run)
        hook_points = tuple(lm.hook_point(name) for name in self._cfg.hook_points)
        rows = [window["n_rows"] for window in read_json(self._run.folder / layout.TEXT)["windows"]]
        return Harvest.of(self._run.folder, self._cfg, lm, hook_points, rows)

    def _compare(self, window: WindowRows, broken: list[str]) -> None:
        """Refuse a model that computes other vectors than those that are still there."""
        for name, rows in window.rows.items():
            for part, start in enumerate(range(0, len(rows), self._cfg.shard_rows)):
                path = layout.shard(self._run.folder, name, window.number, part)
                if path.relative_to(self._run.folder).as_posix() in broken:
                    continue
                old = as_torch(Shard(path).vectors, self._cfg.dtype).float()
                new = as_torch(rows.cut(start, start + len(old)).vectors, self._cfg.dtype).float()
                if not float((old - new).abs().max()) <= ROUNDING * float(old.abs().max()):
                    raise UsageError(
                        f"the model computes other vectors than {path} holds, by more than rounding: nothing of window "
                        f"{window.number} was changed. Mend with the libraries it was harvested with, or harvest anew"
                    )

    def _mend_window_statistics(self, window: int) -> None:
        """From the shards as they lie there, in the order in which they were counted first."""
        rows = {name: self._window_rows(name, window) for name in self._cfg.hook_points}
        groups = by_group(rows, self._cfg.dtype, heldout_documents(self._run.folder))
        write_statistics(layout.window_statistics(self._run.folder, window), groups)

    def _window_rows(self, hook_point: str, window: int) -> Rows:
        shards = [Shard(path) for path in layout.window_shards(self._run.folder, hook_point, window)]
        columns = {name: np.concatenate([shard.columns[name] for shard in shards]) for name in ROW_COLUMNS}
        return Rows(vectors=np.concatenate([shard.vectors for shard in shards]), columns=columns)

    def _mend_receipt(self, window: int) -> None:
        """From the manifest, which knows every file that the receipt named, and the sequences."""
        sequences = read_window(self._run.folder, window)
        kinds = (layout.SHARD_NAME, layout.WINDOW_STATISTICS_NAME)
        matches = {name: match for name in self._files for kind in kinds if (match := kind.match(name))}
        named = [name for name, match in matches.items() if int(match["window"]) == window]
        receipt = {
            "window": window,
            "n_rows": sum(map(len, sequences)),
            "n_sequences": len(sequences),
            "n_padding": sum(batch.n_padding for batch in batches(sequences, self._cfg.batch_tokens)),
            "sink_norms": self._sinks,
            "files": {name: self._files[name] for name in sorted(named, key=self._rank)},
        }
        write_json(layout.receipt(self._run.folder, window), receipt)

    def _rank(self, name: str) -> tuple[int, str]:
        """Shards in the order of their hook points, then the statistics, as a receipt lists them."""
        place = name.split("/")[0]
        return (self._cfg.hook_points.index(place) if place in self._cfg.hook_points else len(self._files), name)

    def _mend_statistics(self) -> None:
        if self._cfg.keep_activations == "all":
            merge_statistics(self._run.folder)
        else:
            sample_first_window(self._job())
