"""Documents to tokens: which ids a text or chat gets, where each came from, and of which class the text makes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from activations.text import Document, Message, Source, TextConfig, mixed
from activations.tokenizer import Encoding, Rendered, Tokenizer, plain_chat
from store.errors import UsageError
from store.shards import TOKEN_CLASSES

AHEAD = 32
"""Documents of one source tokenized together."""
PIECE_CHARS = 200_000
"""Longer texts are tokenized in pieces that end at white space, so that no text makes a tokenizer hold all of it."""
CHARS_PER_TOKEN = 8
"""Characters read, at first, for each token wanted of a document."""
MARGIN_TOKENS = 8
"""Tokens at the end of a cut text that the cut may have changed."""


@dataclass(frozen=True)
class EncodedDocument:
    """A document's tokens; arrays of one length."""

    document: Document
    """Its `text` is what the spans count in; for a chat, the chat as the model reads it."""
    ids: np.ndarray
    char_start: np.ndarray
    char_end: np.ndarray
    text_class: np.ndarray
    """`normal`, `special` or `role`, as `TOKEN_CLASSES`: all that the text alone tells."""
    templated: bool
    """Whether it went through the model's chat template, which begins as the model expects."""
    cut: bool
    """Whether there was more of the document than `max_doc_tokens`."""

    def __len__(self) -> int:
        return len(self.ids)

    def up_to(self, n: int) -> "EncodedDocument":
        """The first `n` tokens, with as much of the text as they cover."""
        if n >= len(self):
            return self
        names = ("ids", "char_start", "char_end", "text_class")
        text = self.document.text[: int(self.char_end[:n].max())]
        short = {name: getattr(self, name)[:n] for name in names}
        return replace(self, document=replace(self.document, text=text), cut=True, **short)


def encoded(tokenizer: Tokenizer, sources: Sequence[Source], cfg: TextConfig) -> Iterator[EncodedDocument]:
    """Documents with tokens, in the order in which every source keeps its share of them, endless memory not needed."""
    waiting: dict[int, EncodedDocument] = {}

    def ahead(source: Source) -> Source:
        def open_ahead(seed: int) -> Iterator[Document]:
            documents = source.open(seed)
            while some := list(islice(documents, AHEAD)):
                for document, done in zip(some, _encode_all(tokenizer, some, cfg), strict=True):
                    waiting[id(document)] = done
                    yield document

        return replace(source, open=open_ahead)

    def size(document: Document) -> int:
        return len(waiting[id(document)])

    for document in mixed([ahead(source) for source in sources], cfg.document_seed, size):
        done = waiting.pop(id(document))
        if len(done):
            yield done


def _encode_all(tokenizer: Tokenizer, documents: Sequence[Document], cfg: TextConfig) -> list[EncodedDocument]:
    rendered = [_rendered(tokenizer, document, cfg) for document in documents]
    limit = cfg.max_doc_tokens
    texts = [one.text if limit is None else one.text[: limit * CHARS_PER_TOKEN] for one in rendered]
    encodings = _encode_texts(tokenizer, texts)
    out = []
    for document, one, text, encoding in zip(documents, rendered, texts, encodings, strict=True):
        if limit is not None:
            encoding = _enough(tokenizer, one.text, text, encoding, limit)
        out.append(_encoded(tokenizer, document, one, encoding, cfg))
    return out


def _encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Short texts together, long ones alone and in pieces."""
    short = [text for text in texts if len(text) <= PIECE_CHARS]
    done = iter(tokenizer.encode_batch(short) if short else [])
    return [next(done) if len(text) <= PIECE_CHARS else _encode_long(tokenizer, text) for text in texts]


def _encode_long(tokenizer: Tokenizer, text: str) -> Encoding:
    whole = Encoding([], [], [])
    for start, piece in _pieces(text):
        part = tokenizer.encode(piece)
        whole.ids.extend(part.ids)
        whole.char_start.extend(start + place for place in part.char_start)
        whole.char_end.extend(start + place for place in part.char_end)
    return whole


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Consecutive pieces with their first character's place; each but the last ends before white space if there is any.

    A space begins the next piece, because tokenizers join a space to the word that follows it.
    """
    start = 0
    while start < len(text):
        stop = start + PIECE_CHARS
        if stop < len(text):
            space = max(text.rfind(" ", start + 1, stop), text.rfind("\n", start + 1, stop))
            stop = space if space > start else stop
        yield start, text[start:stop]
        start = stop


def _enough(tokenizer: Tokenizer, whole: str, text: str, encoding: Encoding, limit: int) -> Encoding:
    """More of the text where what was read gives too few tokens, as runs of white space may."""
    while len(text) < len(whole) and len(encoding.ids) < limit + MARGIN_TOKENS:
        text = whole[: 4 * len(text)]
        (encoding,) = _encode_texts(tokenizer, [text])
    return encoding


def _rendered(tokenizer: Tokenizer, document: Document, cfg: TextConfig) -> Rendered:
    if not document.messages:
        text = encodable(document.text)
        return Rendered(text, [(0, len(text))])
    messages = [Message(encodable(message.role), encodable(message.content)) for message in document.messages]
    try:
        return plain_chat(messages) if cfg.chat == "plain" else tokenizer.render(messages)
    except UsageError as error:
        raise UsageError(f"{document.source!r}, {document.title!r}: {error}") from error


def encodable(text: str) -> str:
    """Half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark: as long as before."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _encoded(
    tokenizer: Tokenizer, document: Document, rendered: Rendered, encoding: Encoding, cfg: TextConfig
) -> EncodedDocument:
    ids = np.array(encoding.ids, np.int32)
    start, end = np.array(encoding.char_start, np.int32), np.array(encoding.char_end, np.int32)
    done = EncodedDocument(
        document=replace(document, text=rendered.text),
        ids=ids,
        char_start=start,
        char_end=end,
        text_class=_text_class(tokenizer, ids, start, end, rendered.content),
        templated=bool(document.messages) and cfg.chat == "template",
        cut=False,
    )
    return done if cfg.max_doc_tokens is None else done.up_to(cfg.max_doc_tokens)


def _text_class(
    tokenizer: Tokenizer, ids: np.ndarray, start: np.ndarray, end: np.ndarray, content: Sequence[tuple[int, int]]
) -> np.ndarray:
    """A token is a role token when none of its characters are anyone's own words."""
    inside = np.zeros(len(ids), bool)
    for first, last in content:
        inside |= (start < last) & (end > first)
    classes = np.where(inside, TOKEN_CLASSES["normal"], TOKEN_CLASSES["role"])
    special = np.isin(ids, sorted(tokenizer.special_ids))
    return np.where(special, TOKEN_CLASSES["special"], classes).astype(np.int8)
