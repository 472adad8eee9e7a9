"""A training run that leaves a trail: a line of JSON for each logged step, checkpoints, and from there it goes on."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from activations.progress import Progress
from activations.shuffle import Shuffled, ShuffleState
from app.loggers import Logger
from sae.encoder import EncoderSAE
from sae.train import Step, TrainConfig, TrainingDiverged, train
from sae.training_checkpoint import Saved, checkpoints, newest, save_state
from store.errors import UsageError

LOG_EVERY = 10
LOG = "log.jsonl"
CHECKPOINTS = ".checkpoints"
"""Hidden: no part of what a finished run is."""

Split = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]
"""From rows as they are read to what the SAE is trained on."""


@dataclass(frozen=True, kw_only=True)
class Trail:
    """What a run leaves while it goes on; none of it changes what is trained."""

    checkpoint_every: int = 200
    """Steps between checkpoints from which a killed run goes on; 0 writes none."""
    loggers: Sequence[Logger] = ()
    """Told the numbers of every logged step too."""

    def __post_init__(self) -> None:
        if self.checkpoint_every < 0:
            raise UsageError(f"checkpoint_every={self.checkpoint_every} is negative: choose a number of steps, or 0")


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


def run_training(
    folder: Path,
    sae: EncoderSAE,
    cfg: TrainConfig,
    reader: Callable[[ShuffleState | None], Shuffled],
    split: Split,
    progress: Progress,
    trail: Trail,
    label: str,
) -> tuple[list[dict[str, Any]], Shuffled]:
    """Train to the end, from the newest checkpoint in `folder` if there is one; the log's lines, and the reader.

    Raises:
        UsageError: training diverged, or a checkpoint is damaged or of other settings.
    """
    saved = newest(folder / CHECKPOINTS)
    done = saved.state.step if saved else 0
    batches = reader(_position(saved))
    try:
        positions = Positions(batches, split)
        steps = train(sae, positions, cfg, saved.state if saved else None)
        log = _lines_until(folder / LOG, done)
        label += f" from step {done:,}" if done else ""
        with (folder / LOG).open("a", encoding="utf-8") as file:
            for step in progress(steps, cfg.n_steps - done, label):
                after, mixing = positions.trained()
                if _is_due(step.step, LOG_EVERY, cfg.n_steps):
                    log.append({**step.numbers(), **mixing})
                    file.write(json.dumps(log[-1]) + "\n")
                    file.flush()
                    _tell(trail.loggers, step, log[-1])
                if trail.checkpoint_every and _is_due(step.step, trail.checkpoint_every, cfg.n_steps):
                    save_state(folder / CHECKPOINTS, steps.state(), {"reader": list(after)})
    except TrainingDiverged as error:
        raise UsageError(f"{error}; {_last_good(folder)}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        batches.close()
    return log, batches


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
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines


def _tell(loggers: Sequence[Logger], step: Step, numbers: Mapping[str, float]) -> None:
    for logger in loggers:
        logger.log(step.step, numbers)


def _last_good(folder: Path) -> str:
    found = checkpoints(folder / CHECKPOINTS)
    return f"the last good checkpoint is {found[-1]}" if found else "there is no earlier checkpoint"
