"""Mend a finished harvest: what is broken or missing is made again, alone, and everything else is left as it is."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from activations.harvest import HarvestConfig
from activations.keep import Harvest, merge_statistics
from activations.models import load_recorded
from activations.prepare import prepare
from activations.progress import Progress, no_progress
from activations.text import TextConfig, read_sources, sources_hash
from store import layout
from store.errors import UsageError
from store.files import read_json, write_json
from store.hashing import plain, sha256_file
from store.run import MANIFEST, Run, locked

log = logging.getLogger(__name__)
WINDOW_FILE = re.compile(r"^windows/(?P<window>\d+)\.(json|parquet)$")
SHARD_FILE = re.compile(r"^(?P<hook_point>[^/]+)/shard-(?P<window>\d+)-\d+\.parquet$")
TEXT_FILE = re.compile(r"^(documents/|tokens/|text\.json$)")


@dataclass
class Damage:
    """Broken files, sorted by what must run again."""

    text: list[str] = field(default_factory=list)
    shards: dict[int, list[str]] = field(default_factory=dict)
    """By window: shards, while the window's receipt is whole."""
    windows: set[int] = field(default_factory=set)
    """Whose receipt or statistics are broken: all of the window is made again."""
    statistics: bool = False

    @classmethod
    def of(cls, broken: Iterable[str]) -> "Damage":
        """Sort the names."""
        damage = cls()
        for name in broken:
            if TEXT_FILE.match(name):
                damage.text.append(name)
            elif match := WINDOW_FILE.match(name):
                damage.windows.add(int(match["window"]))
            elif match := SHARD_FILE.match(name):
                damage.shards.setdefault(int(match["window"]), []).append(name)
            else:
                damage.statistics = True
        for window in damage.windows:
            damage.shards.pop(window, None)
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
        if not broken:
            return []
        damage = Damage.of(broken)
        if damage.text:
            _mend_text(run, damage.text, progress)
        if damage.shards or damage.windows:
            _mend_windows(run, damage, progress)
        if damage.statistics or damage.windows:
            merge_statistics(run.folder)
        _record(run, broken)
        return broken


def _config(run: Run) -> HarvestConfig:
    settings: dict[str, Any] = dict(run.config["harvest"])
    text = TextConfig(**settings.pop("text"))
    return HarvestConfig(**{**settings, "hook_points": tuple(settings["hook_points"])}, text=text)


def _mend_text(run: Run, broken: list[str], progress: Progress) -> None:
    """Read and tokenize again, which gives the same bytes as long as the text is the same."""
    cfg = _config(run)
    sources = read_sources(cfg.text)
    if sources_hash(sources) != run.same["text"]:
        raise UsageError(
            f"{', '.join(broken)} must be made again from {cfg.text.corpus}, which is not what it was: bring the old "
            "text back, or harvest anew"
        )
    (run.folder / layout.TEXT).unlink(missing_ok=True)
    lm = load_recorded(run)
    prepare(run.folder, lm.tokenizer, sources, cfg.text, cfg.n_ctx, cfg.window_rows, progress)
    other = [name for name in broken if sha256_file(run.folder / name) != run.manifest["files"][name]["sha256"]]
    if other:
        raise UsageError(
            f"{', '.join(other)} came out otherwise than before, by other versions of the libraries: harvest anew"
        )


def _mend_windows(run: Run, damage: Damage, progress: Progress) -> None:
    cfg, lm = _config(run), load_recorded(run)
    hook_points = tuple(lm.hook_point(name) for name in cfg.hook_points)
    rows = [window["n_rows"] for window in read_json(run.folder / layout.TEXT)["windows"]]
    job = Harvest.of(run.folder, cfg, lm, hook_points, rows)
    sinks = {name: figures["sink_norm"] for name, figures in run.results["hook_points"].items()}
    todo = sorted(damage.windows | set(damage.shards))
    with job.writer(sinks) as writer:
        for number in progress(todo, len(todo), "harvest again what is broken"):
            only = damage.shards.get(number)
            touched = hook_points if only is None else tuple(h for h in hook_points if _touches(h.name, only))
            builder = job.builder(number, touched)
            for batch in builder.batches:
                builder.add(batch)
            writer.submit(builder.result(), only)


def _touches(hook_point: str, names: Iterable[str]) -> bool:
    return any(name.startswith(f"{hook_point}/") for name in names)


def _record(run: Run, mended: list[str]) -> None:
    """Bring receipts and manifest up to the mended files. Their bytes are the old ones, unless the machine rounds
    otherwise than the one that harvested: that is said, and the new checksums are kept."""
    files = run.manifest["files"]
    before = {name: files[name]["sha256"] for name in mended}
    for name in mended:
        path = run.folder / name
        files[name] = files[name] | {"n_bytes": path.stat().st_size, "sha256": sha256_file(path)}
    changed = [name for name in mended if files[name]["sha256"] != before[name]]
    if changed:
        log.warning(
            "%d mended files differ in their last bits from what they were: %s", len(changed), ", ".join(changed)
        )
        _refresh_receipts(run, changed)
    run.manifest["mended"] = [*run.manifest.get("mended", []), *mended]
    write_json(run.folder / MANIFEST, plain(run.manifest))


def _refresh_receipts(run: Run, changed: list[str]) -> None:
    files = run.manifest["files"]
    for window in {int(match["window"]) for name in changed if (match := SHARD_FILE.match(name))}:
        path = layout.receipt(run.folder, window)
        receipt = read_json(path)
        receipt["files"] = {name: files[name] for name in receipt["files"]}
        write_json(path, receipt)
        name = path.relative_to(run.folder).as_posix()
        files[name] = {"n_bytes": path.stat().st_size, "sha256": sha256_file(path)}
