"""Tokens to sequences: what the model sees at once, made one of two ways.

`sequential`: a row is one document or one chat, or a piece of a long one; nothing is joined. `pack`: documents of one
split are joined end to end and cut at the context length. Held-out and training documents never share a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from activations.encode import EncodedDocument
from activations.text import TextConfig
from store.shards import TOKEN_CLASSES

MIN_TAIL_TOKENS = 16
"""A document's last piece is dropped when shorter than this, or than a quarter of the context, unless it is the only
one: it has too little before it. What is dropped is counted."""


@dataclass(frozen=True)
class TokenSequence:
    """What the model sees at once; arrays of one length."""

    seq: int
    ids: np.ndarray
    """int32."""
    doc_ids: np.ndarray
    """int64: the document of each token; a BOS belongs to the document that follows it."""
    char_start: np.ndarray
    """int32: -1 for a BOS that is in no text."""
    char_end: np.ndarray
    text_class: np.ndarray
    """int8, as `TOKEN_CLASSES`: all that the text alone tells."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class NumberedDocument:
    """A document that was chosen."""

    doc_id: int
    heldout: bool
    tokens: EncodedDocument


class Piece:
    """Tokens of one document, or of several, on their way into a sequence."""

    FIELDS = ("ids", "doc_ids", "char_start", "char_end", "text_class")

    def __init__(self, **columns: np.ndarray) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["ids"])

    @classmethod
    def of(cls, document: NumberedDocument) -> "Piece":
        """All tokens of a document."""
        tokens = document.tokens
        return cls(
            ids=tokens.ids,
            doc_ids=np.full(len(tokens), document.doc_id, np.int64),
            char_start=tokens.char_start,
            char_end=tokens.char_end,
            text_class=tokens.text_class,
        )

    @classmethod
    def bos(cls, bos_id: int, doc_id: int) -> "Piece":
        """One BOS before a document."""
        nowhere = np.array([-1], np.int32)
        return cls(
            ids=np.array([bos_id], np.int32),
            doc_ids=np.array([doc_id], np.int64),
            char_start=nowhere,
            char_end=nowhere,
            text_class=np.array([TOKEN_CLASSES["special"]], np.int8),
        )

    def cut(self, start: int, stop: int) -> "Piece":
        """Tokens `start` to `stop`."""
        return Piece(**{name: column[start:stop] for name, column in self.columns.items()})

    def after(self, *others: "Piece") -> "Piece":
        """`others` and then this."""
        parts = [*others, self]
        return Piece(**{name: np.concatenate([part.columns[name] for part in parts]) for name in self.FIELDS})

    def numbered(self, seq: int) -> TokenSequence:
        """The sequence with this number."""
        return TokenSequence(seq=seq, **self.columns)


def sequences(
    documents: Iterable[NumberedDocument], cfg: TextConfig, n_ctx: int, bos_id: int | None
) -> Iterator[TokenSequence]:
    """Sequences of at most `n_ctx` tokens, numbered from 0.

    Args:
        documents: in order.
        cfg: how rows are made (`mode`, `overlong`, `bos`).
        n_ctx: tokens the model sees at once.
        bos_id: the model's BOS; None where it has none, and then nothing is added.
    """
    make = MODES[cfg.mode]
    for seq, piece in enumerate(make(documents, cfg, n_ctx, None if cfg.bos == "none" else bos_id)):
        yield piece.numbered(seq)


def _sequential(
    documents: Iterable[NumberedDocument], cfg: TextConfig, n_ctx: int, bos_id: int | None
) -> Iterator[Piece]:
    for document in documents:
        pieces = list(_pieces_of(document, n_ctx, bos_id, cfg.bos))
        if cfg.overlong == "truncate":
            pieces = pieces[:1]
        if cfg.overlong == "skip" and len(pieces) > 1:
            continue
        if len(pieces) > 1 and len(pieces[-1]) < min(MIN_TAIL_TOKENS, n_ctx // 4):
            pieces.pop()
        yield from (piece for piece in pieces if len(piece) > 1)


def _pieces_of(document: NumberedDocument, n_ctx: int, bos_id: int | None, bos: str) -> Iterator[Piece]:
    whole, start = Piece.of(document), 0
    while start < len(whole):
        bare = _begins_itself(document, whole, bos_id) if start == 0 else bos == "document"
        before = [] if bare or bos_id is None else [Piece.bos(bos_id, document.doc_id)]
        stop = start + n_ctx - len(before)
        yield whole.cut(start, stop).after(*before)
        start = stop


def _begins_itself(document: NumberedDocument, whole: "Piece", bos_id: int | None) -> bool:
    """Whether a document needs no BOS: a chat template begins as its model expects, and no BOS is doubled."""
    return document.tokens.templated or bool(whole.columns["ids"][0] == bos_id)


def _packed(documents: Iterable[NumberedDocument], cfg: TextConfig, n_ctx: int, bos_id: int | None) -> Iterator[Piece]:
    packers = {heldout: Packer(n_ctx, bos_id, cfg.bos) for heldout in (False, True)}
    for document in documents:
        yield from packers[document.heldout].add(document)
    for packer in packers.values():
        yield from packer.rest()


class Packer:
    """Joins documents of one split end to end."""

    def __init__(self, n_ctx: int, bos_id: int | None, bos: str) -> None:
        self._n_ctx, self._bos_id = n_ctx, bos_id
        self._at_row = bos_id is not None and bos in ("sequence", "both")
        self._at_document = bos_id is not None and bos in ("document", "both")
        self._row: list[Piece] = []

    def add(self, document: NumberedDocument) -> Iterator[Piece]:
        """The rows that this document fills."""
        whole, doc_id = Piece.of(document), document.doc_id
        bare = _begins_itself(document, whole, self._bos_id)
        if self._at_document and not bare:
            whole = whole.after(Piece.bos(self._bos_id or 0, doc_id))
            bare = True
        while len(whole):
            if not self._row and self._at_row and not bare:
                self._row.append(Piece.bos(self._bos_id or 0, doc_id))
            room = self._n_ctx - sum(map(len, self._row))
            self._row.append(whole.cut(0, room))
            whole, bare = whole.cut(room, len(whole)), False
            if sum(map(len, self._row)) == self._n_ctx:
                yield from self._take()

    def rest(self) -> Iterator[Piece]:
        """The last row, which is shorter than the others."""
        if sum(map(len, self._row)) > 1:
            yield from self._take()

    def _take(self) -> Iterator[Piece]:
        *before, last = self._row
        self._row = []
        yield last.after(*before)


MODES = {"sequential": _sequential, "pack": _packed}
