"""A run: a folder named by the content hash of what was asked, holding what came out and what made it."""

import importlib.metadata
import logging
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from store.errors import Busy, UsageError
from store.files import disk_errors, file_entry, is_as_written, read_json, remove_partials, write_json
from store.hashing import content_hash, plain

log = logging.getLogger(__name__)
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
EMBEDDINGS = "embeddings"
UNCHECKED = frozenset({MANIFEST, "progress.jsonl", "catalog.duckdb", "CURRENT", EMBEDDINGS})
"""Files and folders of a run without a checksum: when it was made, and what can be made again from the others."""
PUBLISHED = "index.*.duckdb"
"""Files of an index that are not checked either: each time something is published they are others."""
RECORDED_PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "pyarrow", "duckdb")


@dataclass
class Run:
    """One run folder; `manifest` is what `manifest.json` says."""

    folder: Path
    manifest: dict[str, Any] = field(repr=False)
    reused: bool = False
    """Whether it was there already when it was asked for, so that nothing was done."""

    @property
    def id(self) -> str:
        """Sixteen hex digits: the hash of kind, config and inputs."""
        return self.manifest["id"]

    @property
    def kind(self) -> str:
        """What the run made: `activations`, `sae`, `evaluation`, `index`, `explanations` or `scores`."""
        return self.manifest["kind"]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.manifest["config"]

    @property
    def same(self) -> dict[str, Any]:
        """What two requests have in common that are the same: the configuration, unless the run says otherwise."""
        return self.manifest.get("same", self.config)

    @property
    def inputs(self) -> dict[str, str]:
        """Ids of the runs this one was made from, by kind."""
        return self.manifest["inputs"]

    @property
    def results(self) -> dict[str, Any]:
        """The figures the run ended with."""
        return self.manifest.get("results", {})

    @property
    def finished(self) -> bool:
        """Whether everything the run promised is on disk."""
        return self.manifest["status"] == "finished"

    @property
    def root(self) -> Path:
        """The folder of all runs that this one lies in."""
        return self.folder.parent.parent

    @property
    def way_out(self) -> str:
        """What to do where one of its files is damaged or missing."""
        if self.kind == "activations":
            return f"mend it with `monosem harvest --repair {self.id}`"
        return f"delete {self.folder} and make it again"

    def finish(self, results: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Record checksums of all files and the results, and mark the run finished: the last thing written.

        Args:
            results: the figures the run ended with.
            known: entries of files, by name, that need not be read again: `n_bytes` and `sha256`.
        """
        started = datetime.fromisoformat(self.manifest["started_at"])
        now = datetime.now(UTC)
        self.manifest.pop("process", None)
        self.manifest |= {
            "status": "finished",
            "finished_at": now.isoformat(timespec="seconds"),
            "seconds": round((now - started).total_seconds(), 1),
            "files": {
                name: dict((known or {}).get(name) or file_entry(self.folder / name)._asdict())
                for name in self._file_names()
            },
            "results": plain(results),
        }
        write_json(self.folder / MANIFEST, self.manifest)

    def _file_names(self) -> list[str]:
        """All but those that are not checked, and what lies in hidden folders: scratch."""
        names = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        checked = (name for name in names if UNCHECKED.isdisjoint(name.parts) and not name.match(PUBLISHED))
        return sorted(name.as_posix() for name in checked if not any(part.startswith(".") for part in name.parts[:-1]))

    def broken_files(self, progress: Callable[[Iterable[str], int, str], Iterable[str]] | None = None) -> list[str]:
        """Names of files that are missing or whose bytes are not those recorded when the run finished.

        Args:
            progress: wraps the loop over file names; takes it, its length and a label.
        """
        files = self.manifest.get("files", {})
        names = progress(files, len(files), f"check {self.kind} {self.id}") if progress else files
        return [name for name in names if not is_as_written(self.folder / name, files[name])]


@contextmanager
def start_run(
    root: Path, kind: str, config: Any, inputs: Mapping[str, str], same: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """The run for this request: already finished, begun by a process that died, or new.

    The folder is locked while the context lasts; the lock dies with its owner.

    Args:
        root: the folder of all runs.
        kind: what the run makes.
        config: the resolved configuration.
        inputs: ids of the runs it is made from, by kind.
        same: what two requests that are the same agree on, where that is not the whole configuration: hashes of
            contents in place of the paths they were found at.

    Raises:
        Busy: another process is making the same run.
        UsageError: the folder holds a run of another config.
    """
    request = _request(kind, config, inputs, same)
    folder = root / kind / _identity(request)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if (folder / MANIFEST).exists() and (run := read_run(folder)).finished:
        # Nothing will be written, so nobody need wait.
        run.reused = True
        yield run
        return
    with locked(folder):
        yield _open_or_begin(folder, request)


def finished_run(
    root: Path, kind: str, config: Any, inputs: Mapping[str, str], same: Mapping[str, Any] | None = None
) -> Run | None:
    """The run that `start_run` would find finished; None where there is work left."""
    folder = root / kind / _identity(_request(kind, config, inputs, same))
    return run if (folder / MANIFEST).exists() and (run := read_run(folder)).finished else None


def _request(kind: str, config: Any, inputs: Mapping[str, str], same: Mapping[str, Any] | None) -> dict[str, Any]:
    request = {"kind": kind, "config": plain(config), "inputs": dict(inputs), "format_version": FORMAT_VERSION}
    return request if same is None else request | {"same": plain(same)}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else makes or mends the run in `folder` while the context lasts; the lock dies with its owner.

    Raises:
        Busy: somebody does.
    """
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Busy(
            f"another process is making {folder.parent.name} {folder.name} in {folder.parent.parent}{_owner(folder)}: "
            "wait for it, or choose another --root"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _owner(folder: Path) -> str:
    """Which process began the run in `folder`, where its manifest says so."""
    try:
        process = read_json(folder / MANIFEST).get("process")
    except UsageError:
        return ""  # it has only just begun
    return f" (process {process})" if process else ""


def _identity(request: Mapping[str, Any]) -> str:
    """The run's id: the hash of kind, what makes two configurations the same, inputs and format."""
    asked = {"kind": request["kind"], "config": request.get("same", request["config"])}
    return content_hash(asked | {key: request[key] for key in ("inputs", "format_version")})


def _open_or_begin(folder: Path, request: dict[str, Any]) -> Run:
    if (folder / MANIFEST).exists():
        run = read_run(folder)
        if run.finished:
            return run
    remove_partials(folder)
    manifest = {
        "id": folder.name,
        "status": "started",
        **request,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": provenance(),
        "process": f"{os.getpid()} on {platform.node()}",  # gone from the manifest when it is finished
    }
    write_json(folder / MANIFEST, manifest)
    return Run(folder, manifest)


def read_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        UsageError: no run there, a format this version cannot read, or a manifest that is not this folder's.
    """
    if not (folder / MANIFEST).exists():
        raise UsageError(f"{folder} is not a run: it has no {MANIFEST}. `monosem show` lists the runs there are")
    manifest = read_json(folder / MANIFEST)
    missing = {"id", "kind", "config", "inputs", "status", "format_version"} - set(manifest)
    if missing:
        raise UsageError(f"{folder / MANIFEST} lacks {', '.join(sorted(missing))}: delete {folder} and make it again")
    if manifest["format_version"] != FORMAT_VERSION:
        raise UsageError(
            f"{folder} has format {manifest['format_version']}, this monosem reads {FORMAT_VERSION}: make it again"
        )
    if _identity(manifest) != manifest["id"]:
        raise UsageError(
            f"{folder} holds a run of another config (its manifest was edited): delete the folder and make it again"
        )
    return Run(folder, manifest)


def unfinished_runs(root: Path, kind: str) -> list[Run]:
    """Runs of a kind that were begun and are not finished, whoever makes them or left them."""
    found = (_readable(path.parent) for path in sorted(root.glob(f"{kind}/*/{MANIFEST}")))
    return [run for run in found if run and not run.finished]


def list_runs(root: Path, kind: str | None = None) -> list[Run]:
    """Finished runs under `root`, oldest first."""
    found = (_readable(path.parent) for path in root.glob(f"{kind or '*'}/*/{MANIFEST}"))
    runs = [run for run in found if run and run.finished]
    return sorted(runs, key=lambda run: (run.manifest["finished_at"], (run.folder / MANIFEST).stat().st_mtime_ns))


def _readable(folder: Path) -> Run | None:
    """The run in `folder`; None, with a warning, where it is damaged or of another format: others are not to suffer."""
    try:
        return read_run(folder)
    except UsageError as error:
        log.warning("left out: %s", error)
        return None


def find_run(root: Path, reference: str, kind: str | None = None) -> Run:
    """The finished run that `reference` names: a folder, an id or the start of one, or `latest`.

    Raises:
        UsageError: no such run, more than one, not finished, or of another kind.
    """
    if (Path(reference) / MANIFEST).exists():
        return _checked(read_run(Path(reference)), kind)
    runs = list_runs(root, kind)
    what = f"{kind} run" if kind else "run"
    if reference == "latest":
        if not runs:
            raise UsageError(f"no finished {what} in {root}: make one first, or name its folder with --root")
        return runs[-1]
    matches = [run for run in runs if run.id.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"'{reference}' names {len(matches)} runs: {', '.join(run.id for run in matches)}; give more")
    known = ", ".join(f"{run.kind}/{run.id}" for run in runs[-8:]) or "none"
    raise UsageError(f"no finished {what} '{reference}' in {root}: there is {known}")


def _checked(run: Run, kind: str | None) -> Run:
    if kind and run.kind != kind:
        raise UsageError(f"{run.folder} is a run of kind {run.kind}, not {kind}: name a {kind} run")
    if not run.finished:
        raise UsageError(f"{run.folder} is not finished: run the command that makes it again, and it goes on")
    return run


def provenance() -> dict[str, Any]:
    """Versions, commit and machine, for the manifest."""
    packages = {name: _version(name) for name in RECORDED_PACKAGES}
    return {
        "monosem": _version("monosem"),
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": machine(),
        "packages": {name: version for name, version in packages.items() if version},
    }


def machine() -> str:
    """One line naming the processor, its core count and the system."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {len(names) or '?'} cores, {platform.system()} {platform.machine()}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
