"""Which commands may be started in the background, with which arguments: whatever is not in these tables is refused."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autointerp.arms import NULLS
from autointerp.embedders import EMBEDDERS
from autointerp.explain import EXPLAINERS
from autointerp.llm import BACKENDS
from autointerp.llm.config import CAPS
from autointerp.llm.keys import HOSTS, checked_url, is_known
from autointerp.scorers import SCORERS
from store.errors import UsageError

MOST = 10_000_000
"""Of a whole number."""
SELECT = re.compile(r"\s*(select|with|from)\b", re.IGNORECASE)
NAME = re.compile(r"[\w./@~][\w./@:+~-]{0,199}")
RUN = re.compile(r"[0-9a-f]{4,64}")
MOST_SQL = 4_000


@dataclass(frozen=True)
class Option:
    """One `--name` of a command."""

    check: Callable[[str], bool]
    """Whether a value may be given."""
    rule: str
    """Which may, in words."""
    many: bool = False


def _whole(low: int) -> Option:
    return Option(lambda text: text.isdecimal() and low <= int(text) <= MOST, f"a whole number from {low}")


def _is_amount(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def _one_of(names: Iterable[str], *, many: bool = False) -> Option:
    known = tuple(names)
    return Option(lambda text: text in known, f"one of {', '.join(known)}", many)


def _is_url(text: str) -> bool:
    try:
        return bool(checked_url(text)) and not re.search(r"\s", text) and is_known(text)
    except UsageError:
        return False


AMOUNT = Option(_is_amount, "a number from 0")
ONE_RUN = Option(lambda text: bool(RUN.fullmatch(text)), "the id of a run")
FLAG = Option(lambda text: False, "no value")
"""Given or not."""
LLM = {
    "backend": _one_of(BACKENDS),
    "model": Option(lambda text: bool(NAME.fullmatch(text)), "a name of letters, digits and ./@:+~-"),
    "base-url": Option(
        _is_url, f"an address on this machine, like http://localhost:8000/v1, or of a service that {HOSTS} names"
    ),
    "concurrency": _whole(1),
    "usd-per-million-in": AMOUNT,
    "usd-per-million-out": AMOUNT,
    **{name.replace("_", "-"): AMOUNT if "usd" in name else _whole(0) for name in CAPS},
    "embedder": _one_of(EMBEDDERS),
    "dry-run": FLAG,
}
WHICH = {
    "index-run": ONE_RUN,
    "explainer": _one_of(EXPLAINERS),
    "n-latents": _whole(1),
    "latents": Option(lambda text: text.isdecimal() and int(text) <= MOST, "numbers of latents", many=True),
    "select": Option(
        lambda text: bool(SELECT.match(text)) and len(text) <= MOST_SQL and text.isprintable(),
        f"one line of SQL that begins with SELECT, of at most {MOST_SQL:,} characters",
    ),
    "n-explain": _whole(0),
    "n-score": _whole(0),
    "seed": _whole(0),
}
JUDGED = {"nulls": _one_of(NULLS, many=True), "n-null": _whole(0)}
COMMANDS: dict[str, Mapping[str, Option]] = {
    "interpret": {**WHICH, **LLM, **JUDGED, "scorers": _one_of(SCORERS, many=True)},
    "explain": {**WHICH, **LLM},
    "score": {**LLM, **JUDGED, "explanations": ONE_RUN, "scorer": _one_of(SCORERS), "seed": _whole(0)},
    "index": {"sae": ONE_RUN},
    "evaluate": {"quick": FLAG},
}
"""By command, its options by name."""
POSITIONAL: dict[str, Option] = {"evaluate": ONE_RUN}
"""What stands without a name, right after the command."""


def arguments(command: str, root: Path, asked: Mapping[str, Any], positional: Sequence[str] = ()) -> list[str]:
    """What is typed after `monosem`.

    Args:
        command: a key of `COMMANDS`.
        root: of the runs.
        asked: by option: a value, several, or True; None and False leave it out.
        positional: what stands without a name.

    Raises:
        UsageError: there is no such command or option, or it does not take the value.
    """
    if command not in COMMANDS:
        raise UsageError(f"'{command}' is not started in the background: choose one of {', '.join(COMMANDS)}")
    table = COMMANDS[command]
    found = [command, *(_checked(command, POSITIONAL.get(command, FLAG), value) for value in positional)]
    found += ["--root", str(root.resolve())]
    for name, value in asked.items():
        if name not in table:
            raise UsageError(f"`monosem {command}` is not given --{name} in the background: {', '.join(table)} are")
        found += _written(name, table[name], value)
    return found


def _written(name: str, option: Option, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if option is FLAG:
        return [f"--{name}"]
    values = list(value) if option.many else [value]
    return [f"--{name}", *(_checked(f"--{name}", option, each) for each in values)]


def _checked(name: str, option: Option, value: Any) -> str:
    text = str(value)
    if not option.check(text):
        raise UsageError(f"{name} {text!r}: give {option.rule}")
    return text
