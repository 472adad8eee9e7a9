"""Rows to documents: a text column, or the turns of a chat."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from activations.documents import Document, Message, TextConfig
from store.errors import UsageError

CONVERSATIONS = "conversations"
"""Where ShareGPT and its kin keep a chat; looked for beside `messages_column`."""
LABELS = ("source", "title")
"""Columns that say what a document is, where there are any."""
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "tool": "tool"}
"""ShareGPT's names of those who speak."""
MAX_SHOWN = 12
"""Columns that an error lists."""


class Row(NamedTuple):
    """One row of a file or dataset."""

    where: str
    """What errors call it: file and line."""
    title: str
    values: Any
    """Values by column; anything at all in a line of JSON."""


def wanted_columns(cfg: TextConfig) -> tuple[str, ...]:
    """The columns that are read; nothing else need be loaded."""
    return tuple(dict.fromkeys((*_content_columns(cfg), *LABELS)))


def check_columns(where: str, columns: list[str], cfg: TextConfig) -> None:
    """Check that there is a column with text or messages.

    Raises:
        UsageError: there is neither.
    """
    looked_for = _content_columns(cfg)
    if any(name in columns for name in looked_for):
        return
    shown = ", ".join(columns[:MAX_SHOWN]) + (", …" if len(columns) > MAX_SHOWN else "")
    raise UsageError(
        f"{where} has no column {' or '.join(looked_for)}, only {shown or 'nothing'}: "
        "name a column with --text-column or --messages-column"
    )


def document(row: Row, source: str, cfg: TextConfig) -> Document:
    """The document in a row; one without text where the text is null or empty.

    Args:
        row: from a file or dataset.
        source: where the row does not say it itself.
        cfg: which columns hold the text or the messages.

    Raises:
        UsageError: there is no such column, or what it holds is neither text nor turns.
    """
    values = row.values
    if not isinstance(values, Mapping):
        raise UsageError(f'{row.where} is {_kind(values)}: every line needs an object such as {{"text": "…"}}')
    check_columns(row.where, [str(name) for name in values], cfg)
    source, title = _label(values.get("source"), source), _label(values.get("title"), row.title)
    for column in _content_columns(cfg):
        value, where = values.get(column), f'{row.where}: "{column}"'
        if value in (None, "", b""):
            continue
        if column == cfg.text_column:
            return Document(source, title, _text(value, where, "--text-column", cfg))
        return Document(source, title, messages=tuple(_turns(value, where, cfg)))
    return Document(source, title)


def decoded(data: bytes, where: Callable[[int], str], cfg: TextConfig) -> str:
    """UTF-8 bytes as text.

    Raises:
        UsageError: they are not UTF-8, and that is to be an error; `where` says in which file the byte is.
    """
    try:
        return data.decode("utf-8", cfg.encoding_errors)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where(error.start)}: convert it first, or read on with --encoding-errors replace or ignore"
        ) from error


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _content_columns(cfg: TextConfig) -> tuple[str, ...]:
    names = (cfg.text_column, cfg.messages_column, CONVERSATIONS)
    return tuple(dict.fromkeys(name for name in names if name))


def _label(value: Any, default: str) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return default if value is None else str(value)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.40}"


def _text(value: Any, where: str, flag: str, cfg: TextConfig) -> str:
    if isinstance(value, bytes):
        return decoded(value, lambda byte: f"{where} is not UTF-8 at its byte {byte}", cfg)
    if not isinstance(value, str):
        raise UsageError(f"{where} is {_kind(value)}, not a string: name another column with {flag}, or mend the row")
    return value


def _turns(value: Any, where: str, cfg: TextConfig) -> Iterator[Message]:
    if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
        # A list of turns that `datasets` has stored column by column.
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise UsageError(
            f"{where} is {_kind(value)}, not a list of turns: name another column with --messages-column, "
            "or read it as text with --text-column"
        )
    for number, turn in enumerate(value, 1):
        yield _turn(turn, f"{where}, turn {number}", cfg)


def _turn(turn: Any, where: str, cfg: TextConfig) -> Message:
    values: Mapping[Any, Any] = turn if isinstance(turn, Mapping) else {}
    if "content" in values and isinstance(values.get("role"), str):
        return Message(values["role"], _content(values["content"], where, cfg))
    if "from" not in values or "value" not in values:
        raise UsageError(f"{where} is {_kind(turn)}: every turn needs role and content, or from and value")
    speaker = values["from"]
    if speaker not in ROLES and speaker not in ROLES.values():
        raise UsageError(f"{where} is from {speaker!r:.40}: mend it to one of {', '.join(ROLES)}")
    return Message(ROLES.get(speaker) or str(speaker), _content(values["value"], where, cfg))


def _content(value: Any, where: str, cfg: TextConfig) -> str:
    """The words of a turn; a turn that only calls a tool has none."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        return "".join(_text(part.get("text"), where, "--messages-column", cfg) for part in value)
    return _text(value, where, "--messages-column", cfg)
