"""A text that a person typed or pasted, as the ids that the model reads: as it is, or through its chat template."""

import re
from typing import TYPE_CHECKING, NamedTuple

from activations.documents import Message
from activations.tokenizer import Tokenizer
from store.errors import UsageError
from store.latents import token_texts

if TYPE_CHECKING:
    from autointerp.subject import Subject

TURN = re.compile(r"^(system|user|assistant|tool):[ \t]*", re.MULTILINE | re.IGNORECASE)
"""What begins a turn in a pasted chat."""


class Typed(NamedTuple):
    """A text to the model."""

    ids: list[int]
    """BOS first where the model has one."""
    tokens: tuple[str, ...]
    """The text of each."""


def typed(subject: "Subject", text: str, *, chat: bool = False) -> Typed:
    """The ids of a text and their own texts.

    Args:
        subject: whose model reads it.
        text: what was typed.
        chat: put it through the model's chat template; `turns` says what its turns are.

    Raises:
        UsageError: there is no text, no chat template, or there are more tokens than the model's context.
    """
    tokenizer = subject.lm.tokenizer
    if not chat:
        ids = subject.ids(text)
        own = tokenizer.encode(text)
        pieces = token_texts(text, own.char_start, own.char_end)
        return Typed(ids, (*tokenizer.token_texts(ids[: len(ids) - len(pieces)]), *pieces))
    if not text.strip():
        raise UsageError("there is no text to read: give at least one word")
    if not tokenizer.has_chat_template:
        raise UsageError("this model has no chat template: read the text as it is, or use an instruct model")
    ids = tokenizer.chat(turns(text))
    if len(ids) > subject.lm.n_ctx:
        raise UsageError(f"the chat has {len(ids)} tokens, the model reads {subject.lm.n_ctx}: shorten it")
    return Typed(ids, _texts(tokenizer, ids))


def turns(text: str) -> list[Message]:
    """The turns of a chat: a line that begins with `system:`, `user:`, `assistant:` or `tool:` begins one. A text that
    does not begin so is a user's message."""
    begins = list(TURN.finditer(text))
    if not begins or text[: begins[0].start()].strip():
        return [Message("user", text)]
    stops = [*(each.start() for each in begins[1:]), len(text)]
    return [Message(each[1].lower(), text[each.end() : stop].strip()) for each, stop in zip(begins, stops, strict=True)]


def _texts(tokenizer: Tokenizer, ids: list[int]) -> tuple[str, ...]:
    """Each token's own characters, where their text is read as the same tokens; else each decoded alone."""
    text = tokenizer.decode(ids)
    again = tokenizer.encode(text)
    return token_texts(text, again.char_start, again.char_end) if again.ids == ids else tokenizer.token_texts(ids)
