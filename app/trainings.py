"""Trainings under a root, the running and the killed ones among them: their logs, how far they are, how fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store import layout
from store.run import Run, list_runs, unfinished_runs
from store.under_way import at_work

LOG = "log.jsonl"
CHECKPOINTS = ".checkpoints"
"""Hidden: no part of what a finished run is."""
KEPT = "steps"
"""Dictionaries as they were at some steps, each a folder like the run's own checkpoint; part of the run."""
SETTINGS = ("train", "build")
"""A run of kind `sae` has one of them where it was trained or built here, not imported."""
RATE_SECONDS = 60
"""The rate is that of the last minute."""
STATES: dict[bool | None, str] = {True: "running", False: "interrupted", None: "not finished"}
"""By whether a process is at it: what a training is that has not finished."""


@dataclass(frozen=True)
class Trained:
    """One training."""

    run: Run
    state: str
    """`finished`, or one of `STATES`."""

    @property
    def running(self) -> bool:
        """Whether a process is at it."""
        return self.state == STATES[True]

    @property
    def log(self) -> Path:
        """A line for every tenth step."""
        return self.run.folder / LOG

    @property
    def beats(self) -> Path:
        """When those steps were taken; trainings before this was written down have none."""
        return self.run.folder / layout.PROGRESS

    @property
    def n_steps(self) -> int | None:
        """How many there will be; an ITDA's end with the text."""
        return self.run.results.get("n_steps") or self.run.config.get("train", {}).get("n_steps")

    @property
    def title(self) -> str:
        """A few words that tell it from others: variant, width, what its sparsity is set by, hook point, id."""
        config = self.run.config
        sae = config.get("sae", {})
        width = self.run.results.get("d_sae") or sae.get("d_sae")
        told = [f"{key}={sae[key]}" for key in ("k", "target_l0", "l1_coefficient", "levels") if sae.get(key)]
        words = [config.get("variant", "sae"), width, *told, config.get("hook_point"), f"({self.run.id[:8]})"]
        return " ".join(str(word) for word in words if word)

    @property
    def short(self) -> str:
        """Variant and the start of its id."""
        return f"{self.run.config.get('variant', 'sae')} {self.run.id[:8]}"


@dataclass(frozen=True)
class Headway:
    """How far a training is, and how fast; None where it is not known."""

    step: int
    n_steps: int | None
    steps_per_s: float | None
    last_at: float | None
    """Unix time of the last logged step."""

    @property
    def share(self) -> float | None:
        """Of all steps."""
        return min(self.step / self.n_steps, 1.0) if self.n_steps else None

    @property
    def eta_s(self) -> float | None:
        """Seconds of training left at this rate."""
        if not self.n_steps or not self.steps_per_s:
            return None
        return (self.n_steps - self.step) / self.steps_per_s


def trainings(root: Path) -> list[Trained]:
    """All under `root`, oldest first, those that have not finished last; imported dictionaries are none."""
    found = [Trained(run, "finished") for run in list_runs(root, "sae")]
    for run in sorted(unfinished_runs(root, "sae"), key=lambda run: run.manifest.get("started_at", "")):
        found.append(Trained(run, STATES[at_work(run)]))
    return [one for one in found if not set(SETTINGS).isdisjoint(one.run.config)]


def headway(training: Trained, log: Sequence[Mapping[str, Any]], beats: Sequence[Mapping[str, Any]]) -> Headway:
    """How far a training is, by the lines of its two logs."""
    begun = max((n for n, beat in enumerate(beats) if beat.get("begun")), default=0)
    # What lies between its beginning and the first logged step is mostly reading and initialising.
    own = [beat for beat in beats[begun:] if not beat.get("begun")]
    last = own[-1] if own else None
    recent = [beat for beat in own if last and last["time"] - beat["time"] <= RATE_SECONDS]
    rate = None
    if len(recent) > 1 and recent[-1]["time"] > recent[0]["time"]:
        rate = (recent[-1]["step"] - recent[0]["step"]) / (recent[-1]["time"] - recent[0]["time"])
    step = int(log[-1]["step"]) if log else 0
    return Headway(step, training.n_steps, rate, float(last["time"]) if last else None)


def checkpoint_steps(training: Trained) -> list[int]:
    """Steps that a killed training can go on from, oldest first."""
    return _steps(training.run.folder / CHECKPOINTS)


def kept_steps(run: Run) -> list[int]:
    """Steps whose dictionary was kept, oldest first: they lie at `kept_folder`."""
    return _steps(run.folder / KEPT)


def kept_folder(run: Path, step: int) -> Path:
    """Where the dictionary of a step of the run in that folder is kept."""
    return run / KEPT / f"step-{step:08d}"


def _steps(folder: Path) -> list[int]:
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted(int(name) for name in names if name.isdecimal())
