"""Where a training run's numbers go besides its own log: services that are asked for by name, and loaded only then."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from store.errors import UsageError


class Logger(Protocol):
    """Takes a step's numbers."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write down the numbers of a step."""
        ...

    def close(self) -> None:
        """Write what is still held back."""
        ...


class TensorBoard:
    """Event files in a folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        """Begin the file in `folder`/tensorboard; `config` is written down as text."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise _missing("tensorboard") from error
        self._writer = SummaryWriter(str(folder / "tensorboard" / name))
        self._writer.add_text("config", str(dict(config)))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One scalar for each number."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, under the id of the run, so that a run that goes on goes on there too."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        """Begin the run; its files lie in `folder`."""
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _missing("wandb") from error
        self._run = wandb.init(project="monosem", id=name, resume="allow", dir=str(folder), config=dict(config))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of one step."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()


LOGGERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Logger]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""Every logger by name."""


def check_loggers(names: tuple[str, ...]) -> None:
    """Raises: UsageError: a name that is not known."""
    for asked in names:
        if asked not in LOGGERS:
            raise UsageError(f"logger '{asked}' is not known: choose of {', '.join(LOGGERS)}")


def open_loggers(names: tuple[str, ...], folder: Path, name: str, config: Mapping[str, Any]) -> list[Logger]:
    """Loggers by name, ready to be written to.

    Raises:
        UsageError: a package that is not installed.
    """
    return [LOGGERS[asked](folder, name, config) for asked in names]


def _missing(package: str) -> UsageError:
    return UsageError(f"logging to {package} needs the package: pip install 'monosem[{package}]'")
