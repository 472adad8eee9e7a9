"""Tokenizers: text to ids with the characters each id covers, and back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from activations.text import Message
from store.errors import UsageError
from store.remembered import remembered_hash

TOKENIZER_FILES = ("*token*", "*tekken*", "vocab*", "merges*", "*.model", "*.jinja")
"""Files of a model folder that decide which ids a text gets."""


class Encoding(NamedTuple):
    """A text's tokens; three lists of one length."""

    ids: list[int]
    char_start: list[int]
    """Where each token's characters begin in the text."""
    char_end: list[int]


class Rendered(NamedTuple):
    """A chat as the text a model reads."""

    text: str
    content: list[tuple[int, int]]
    """First character of each turn's own words and the first after them; all else is the template's."""


class Tokenizer(ABC):
    """What the rest of the code asks of a tokenizer. `encode` never adds special tokens: `sequences` adds BOS, once."""

    bos_id: int | None
    special_ids: frozenset[int]
    d_vocab: int
    """Ids are below it."""
    fingerprint: str
    """Changes when the same text could give other ids."""
    has_chat_template: bool = False
    """Whether chats are written as the model was trained to read them."""

    @abstractmethod
    def encode(self, text: str) -> Encoding:
        """The text's tokens, no special ones added."""

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """`encode` of each text; at once where that is faster."""
        return [self.encode(text) for text in texts]

    def render(self, turns: Sequence[Message]) -> Rendered:
        """A chat through the model's own template.

        Raises:
            UsageError: there is no template, or it refuses the chat or changes its words.
        """
        raise UsageError("this model has no chat template: harvest chats with --chat plain, or use an instruct model")

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""

    @abstractmethod
    def chat(self, message: str | Sequence[Message]) -> list[int]:
        """Ids of a user's message, or of a chat, ready for the model's answer where a user has the last word; without a
        chat template, BOS and the words.

        Raises:
            UsageError: the template refuses the chat.
        """

    def with_bos(self, ids: Sequence[int]) -> list[int]:
        """`ids` after BOS, for a tokenizer that has one."""
        return [*([] if self.bos_id is None else [self.bos_id]), *ids]

    def token_texts(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Each token decoded alone; a part of a character shows as the replacement character."""
        return tuple(self.decode([token_id]) for token_id in ids)


@final
class ByteTokenizer(Tokenizer):
    """One token a byte of UTF-8: ids 0 to 255, BOS 256, EOS 257. Needs no file."""

    bos_id = 256
    eos_id = 257
    d_vocab = 258
    special_ids = frozenset({256, 257})
    fingerprint = "bytes-1"

    def encode(self, text: str) -> Encoding:
        """The text's UTF-8 bytes; all bytes of a character cover that character."""
        pieces = [character.encode("utf-8", "replace") for character in text]
        spans = [(i, i + 1) for i, piece in enumerate(pieces) for _ in piece]
        return Encoding(list(b"".join(pieces)), [start for start, _ in spans], [end for _, end in spans])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some bytes; special tokens give nothing."""
        return bytes(token_id for token_id in ids if token_id < 256).decode("utf-8", "replace")

    def chat(self, message: str | Sequence[Message]) -> list[int]:
        """BOS and the words' bytes."""
        return self.with_bos(self.encode(_words(message)).ids)


@final
class HFTokenizer(Tokenizer):
    """A fast tokenizer read from a model folder with transformers."""

    def __init__(self, folder: Path) -> None:
        """Read the tokenizer in `folder`."""
        from transformers import AutoTokenizer

        self._hf: Any = AutoTokenizer.from_pretrained(str(folder))
        # Straight to the library below, which transformers wraps in a slower call. Texts are cut later, never here.
        self._fast = self._hf.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        self.has_chat_template = bool(self._hf.chat_template)
        self.bos_id = self._hf.bos_token_id
        self.d_vocab = len(self._hf)
        self.special_ids = frozenset(self._hf.all_special_ids)
        self.fingerprint = remembered_hash(folder, TOKENIZER_FILES)

    def encode(self, text: str) -> Encoding:
        """The text's tokens and their character spans."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """The texts' tokens and their character spans, several texts at a time."""
        done = self._fast.encode_batch(list(texts), add_special_tokens=False)
        return [Encoding(one.ids, [start for start, _ in one.offsets], [end for _, end in one.offsets]) for one in done]

    def render(self, turns: Sequence[Message]) -> Rendered:
        """A chat through the model's own template."""
        if not self.has_chat_template:
            return super().render(turns)
        text = self._rendered([turn.content for turn in turns], turns)
        # The template alone, with a mark for each turn's words, tells its own words from theirs: "user" may be either.
        marks = [f"\ue000{number}\ue001" for number in range(len(turns))]
        return Rendered(text, _content_spans(text, self._rendered(marks, turns), marks, turns))

    def _rendered(self, contents: Sequence[str], turns: Sequence[Message]) -> str:
        messages = [{"role": turn.role, "content": content} for turn, content in zip(turns, contents, strict=True)]
        return self._templated(messages, tokenize=False)

    def _templated(self, messages: list[dict[str, str]], **how: bool) -> Any:
        try:
            return self._hf.apply_chat_template(messages, **how)
        except Exception as error:  # a template is a program of the model: it may raise anything
            raise UsageError(
                f"the model's chat template refuses a chat ({error}): mend it, or use --chat plain"
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens, special ones included."""
        return self._hf.decode(list(ids), clean_up_tokenization_spaces=False)

    def chat(self, message: str | Sequence[Message]) -> list[int]:
        """The message, or the chat, through the model's own chat template."""
        if not self.has_chat_template:
            return self.with_bos(self.encode(_words(message)).ids)
        turns = [Message("user", message)] if isinstance(message, str) else message
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        answers = messages[-1]["role"] != "assistant"
        return list(self._templated(messages, add_generation_prompt=answers, return_dict=True)["input_ids"])


def _words(message: str | Sequence[Message]) -> str:
    return message if isinstance(message, str) else plain_chat(message).text


def _content_spans(text: str, marked: str, marks: Sequence[str], turns: Sequence[Message]) -> list[tuple[int, int]]:
    """Where each turn's words are in the rendered chat: between the pieces that the marked one has around its marks.

    Args:
        text: the chat through the template.
        marked: the same with a mark in place of each turn's words.
        marks: those.
        turns: of the chat. Templates may strip their words, and do nothing else to them.
    """
    spans, reached, left = [], 0, marked
    for number, (mark, turn) in enumerate(zip(marks, turns, strict=True), 1):
        before, found, left = left.partition(mark)
        start = reached + len(before)
        here = text[start:] if found and text[reached:start] == before else None
        after = left.split("\ue000", 1)[0]
        words = (turn.content, turn.content.strip())
        length = next((len(w) for w in words if here is not None and here.startswith(w + after)), None)
        if length is None:
            raise UsageError(
                f"the chat template changes the words of turn {number} ({turn.role!r}), so that they cannot be told "
                "from its own: use --chat plain"
            )
        reached = start + length
        spans.append((start, reached))
    return spans


def plain_chat(turns: Sequence[Message]) -> Rendered:
    """A chat as lines of `role: words`, for models without a template."""
    text, spans = "", []
    for turn in turns:
        text += f"{turn.role}: "
        spans.append((len(text), len(text) + len(turn.content)))
        text += f"{turn.content}\n"
    return Rendered(text, spans)
