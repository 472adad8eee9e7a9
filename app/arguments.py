"""What every command's arguments share: parsing a dataclass, and which folder the runs are in."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from store.errors import UsageError

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class RootArgs:
    """Where runs are kept."""

    root: Path = Path("runs")
    """Folder of all runs; a run lies in ROOT/KIND/ID, its ID the hash of what was asked for."""


@dataclass(frozen=True, kw_only=True)
class DryRunArgs(RootArgs):
    """Those of a command that may ask a language model."""

    dry_run: bool = False
    """Say what would be sent to the language model, what it takes and costs, and which caps stop it; send nothing."""


def parse(args_cls: type[T], command: str, arguments: Sequence[str], *, prefixed: bool = False) -> T:
    """The arguments of `monosem COMMAND`; tyro prints help and complaints, and exits with 0 or 2.

    Args:
        args_cls: a dataclass; its fields may be dataclasses.
        command: its name.
        arguments: what was typed after it.
        prefixed: whether fields of a field are asked for as `--FIELD.NAME`, not as `--NAME`.
    """
    return tyro.cli(
        args_cls,
        prog=f"monosem {command}",
        args=list(arguments),
        config=() if prefixed else (tyro.conf.OmitArgPrefixes,),
    )


def unchecked(config_cls: type, hidden: Mapping[str, Any] | None = None, **defaults: Any) -> Any:
    """A twin of a config for parsing, with defaults of its own and without its checks: `checked` runs those.

    Args:
        config_cls: a frozen dataclass.
        hidden: fields that are not asked for, because the command knows them only later, and what stands in for them.
        defaults: by field name.
    """
    annotations: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(config_cls) if f.name in defaults}  # type: ignore[arg-type]
    hidden = hidden or {}
    annotations |= {name: Annotated[type(value), tyro.conf.Suppress] for name, value in hidden.items()}
    fields = {
        "__annotations__": annotations,
        "__doc__": config_cls.__doc__,
        "__module__": config_cls.__module__,
        "__post_init__": lambda self: None,
        **hidden,
        **defaults,
    }
    return dataclass(frozen=True, kw_only=True)(type(config_cls.__name__, (config_cls,), fields))


def checked(config_cls: type[C], asked: Any, **known: Any) -> C:
    """The config itself, from what was asked and what is known by now.

    Raises:
        UsageError: a setting that the config does not allow, in the config's own words.
    """
    asked_for = {f.name for f in dataclasses.fields(config_cls)} - known.keys()  # type: ignore[arg-type]
    settings = {name: getattr(asked, name) for name in asked_for}
    try:
        return config_cls(**settings | known)
    except ValueError as error:
        raise UsageError(str(error)) from error


def lines_of(name: str, given: Sequence[str]) -> tuple[str, ...]:
    """Texts as they were given, and those of each @FILE, one a line; empty lines are none.

    Raises:
        UsageError: a file cannot be read.
    """
    found: list[str] = []
    for each in given:
        if not each.startswith("@"):
            found.append(each)
            continue
        try:
            found += [line for line in Path(each[1:]).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--{name.replace('_', '-')} {each}: {error}: name a text file, a text a line") from error
    return tuple(found)
