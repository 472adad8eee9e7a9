"""A training run that leaves a trail: a line of JSON for each logged step, checkpoints, and from there it goes on."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, NamedTuple, TextIO

from torch import Tensor

from activations.progress import Progress
from activations.shuffle import Shuffled, ShuffleState
from app.loggers import Logger, check_loggers
from app.trainings import CHECKPOINTS, LOG, kept_folder
from sae import checkpoint
from sae.encoder import EncoderSAE
from sae.train import Step, TrainConfig, Training, TrainingDiverged, TrainingState, train
from sae.training_checkpoint import Saved, checkpoints, newest, save_state
from store import layout
from store.errors import UsageError
from store.files import disk_errors, whole_file

LOG_EVERY = 10

Split = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]
"""From rows as they are read to what the SAE is trained on."""


@dataclass(frozen=True, kw_only=True)
class Trail:
    """What a run leaves while it goes on; none of it changes what is trained."""

    checkpoint_every: int = 200
    """Steps between checkpoints from which a killed run goes on; 0 writes none."""
    keep_every: int = 0
    """Steps between dictionaries that are kept as they are then, to be compared with one another; 0 keeps none."""
    log_to: tuple[str, ...] = ()
    """Names in `app.loggers.LOGGERS`: told the numbers of every logged step too."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep_every"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)} is negative: choose a number of steps, or 0")
        check_loggers(self.log_to)


DEFAULT_TRAIL = Trail()


class Positions(Iterator[Any]):
    """Batches, and where the reader stood after each that was not trained on yet."""

    def __init__(self, batches: Shuffled, split: Split) -> None:
        self._batches, self._split = batches, split
        self._after: deque[tuple[ShuffleState, dict[str, Any]]] = deque()

    def __next__(self) -> Tensor | tuple[Tensor, Tensor]:
        rows = next(self._batches)
        mixing = self._batches.mixing
        told = {"distinct_sequences": mixing.n_distinct, "batch_entropy": mixing.entropy}
        self._after.append((self._batches.state, told))
        return self._split(rows)

    def trained(self) -> tuple[ShuffleState, dict[str, Any]]:
        """Where the reader stood after the oldest batch not asked for yet, and how well that batch mixed the text."""
        return self._after.popleft()


class Unconfirmed(NamedTuple):
    """A state that the next step's loss has not yet shown to be good."""

    state: TrainingState
    reader: ShuffleState


@dataclass
class Loop:
    """One run: what is trained, and what is told of it while it goes on."""

    folder: Path
    cfg: TrainConfig
    progress: Progress
    trail: Trail
    loggers: Sequence[Logger]
    told: Mapping[str, Any] = field(default_factory=dict)
    """Written beside a dictionary that is kept: where it reads the model."""

    def run(
        self, sae: EncoderSAE, reader: Callable[[ShuffleState | None], Shuffled], split: Split, label: str
    ) -> tuple[list[dict[str, Any]], Shuffled]:
        """Train to the end, from the newest checkpoint if there is one; the log's lines, and the reader.

        Raises:
            UsageError: training diverged, or a checkpoint is damaged or of other settings.
        """
        saved = newest(self.folder / CHECKPOINTS)
        batches = reader(_position(saved))
        try:
            positions = Positions(batches, split)
            steps = train(sae, positions, self.cfg, saved.state if saved else None)
            return self._logged(steps, positions, label), batches
        except TrainingDiverged as error:
            raise UsageError(f"{error}; {_last_good(self.folder)}") from error
        except ValueError as error:
            raise UsageError(str(error)) from error
        finally:
            batches.close()

    def _logged(self, steps: Training, positions: Positions, label: str) -> list[dict[str, Any]]:
        """All steps that are left, each logged and kept as it is due."""
        done, last = steps.step, self.cfg.n_steps
        log = _lines_until(self.folder / LOG, done)
        label += f" from step {done:,}" if done else ""
        unconfirmed: Unconfirmed | None = None
        _beat(self.folder, done, begun=True)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            for step in self.progress(steps, last - done, label):
                if unconfirmed:
                    _confirm(self.folder, unconfirmed, file)
                    unconfirmed = None
                after, mixing = positions.trained()
                if _is_due(step.step, LOG_EVERY, last):
                    log.append({**step.numbers(), **mixing})
                    file.write(json.dumps(log[-1]) + "\n")
                    file.flush()
                    _beat(self.folder, step.step)
                    _tell(self.loggers, step, log[-1])
                if self.trail.keep_every and step.step % self.trail.keep_every == 0:
                    checkpoint.save(kept_folder(self.folder, step.step), steps.sae, {**self.told, "step": step.step})
                if self.trail.checkpoint_every and _is_due(step.step, self.trail.checkpoint_every, last):
                    unconfirmed = Unconfirmed(steps.state(), after)
            if unconfirmed:
                _confirm(self.folder, unconfirmed, file)
        return log


def _beat(folder: Path, step: int, *, begun: bool = False) -> None:
    """When a step was taken, for whoever watches: beside the log, which is the same whenever it was written.

    Args:
        folder: of the run.
        step: the last one taken.
        begun: whether a process goes on from here; on a new line, for one that was killed can leave half a line.
    """
    line = {"time": round(time(), 3), "step": step}
    path = folder / layout.PROGRESS
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write("\n" * begun + json.dumps(line | {"begun": True} if begun else line) + "\n")


def _confirm(folder: Path, one: Unconfirmed, log: TextIO) -> None:
    """Write a checkpoint, after the log up to it is on the disk."""
    os.fsync(log.fileno())
    save_state(folder / CHECKPOINTS, one.state, {"reader": list(one.reader)})


def _is_due(step: int, every: int, last: int) -> bool:
    """Every so many steps, and at the last one."""
    return step % every == 0 or step == last


def _position(saved: Saved | None) -> ShuffleState | None:
    return ShuffleState(*saved.extra["reader"]) if saved else None


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The log's lines up to a step; what was logged after the checkpoint will be logged again."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:  # the last line of a run that was killed
                break
    lines = [line for line in lines if line["step"] <= step]
    with whole_file(path) as scratch:
        scratch.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines


def _tell(loggers: Sequence[Logger], step: Step, numbers: Mapping[str, float]) -> None:
    for logger in loggers:
        logger.log(step.step, numbers)


def _last_good(folder: Path) -> str:
    found = checkpoints(folder / CHECKPOINTS)
    return f"the last good checkpoint is {found[-1]}" if found else "there is no earlier checkpoint"
