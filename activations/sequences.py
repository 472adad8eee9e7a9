"""Documents to token sequences: cut at the context length, never across documents, BOS first in each."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from activations.text import Document, Source, TextConfig, mixed
from activations.tokenizer import Encoding, Tokenizer
from store.errors import UsageError
from store.tables import DOCUMENTS, SEQUENCES

MIN_TAIL_TOKENS = 16
"""A document's last piece is dropped when shorter than this, unless it is the only one: it has too little context."""


@dataclass(frozen=True)
class TokenSequence:
    """What the model sees at once."""

    seq: int
    doc_id: int
    ids: tuple[int, ...]
    """BOS first where the tokenizer has one."""
    char_start: tuple[int, ...]
    """-1 for BOS."""
    char_end: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TokenizedText:
    """Chosen documents and their sequences."""

    documents: tuple[Document, ...]
    """`doc_id` is the place in this tuple; `text` ends with the last token taken."""
    heldout: tuple[bool, ...]
    sequences: tuple[TokenSequence, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens over all sequences, BOS included."""
        return sum(len(sequence) for sequence in self.sequences)

    def tables(self) -> dict[str, pa.Table]:
        """`documents` and `sequences` as Arrow tables."""
        counts = np.zeros(len(self.documents), np.int64)
        for sequence in self.sequences:
            counts[sequence.doc_id] += len(sequence)
        documents = {
            "doc_id": range(len(self.documents)),
            "source": [document.source for document in self.documents],
            "title": [document.title for document in self.documents],
            "split": ["heldout" if held else "train" for held in self.heldout],
            "n_tokens": counts,
            "text": [document.text for document in self.documents],
        }
        sequences = {
            "seq": [sequence.seq for sequence in self.sequences],
            "doc_id": [sequence.doc_id for sequence in self.sequences],
            "token_ids": [sequence.ids for sequence in self.sequences],
            "char_start": [sequence.char_start for sequence in self.sequences],
            "char_end": [sequence.char_end for sequence in self.sequences],
        }
        return {
            "documents": pa.table({k: pa.array(v, DOCUMENTS.field(k).type) for k, v in documents.items()}),
            "sequences": pa.table({k: pa.array(v, SEQUENCES.field(k).type) for k, v in sequences.items()}),
        }


def tokenize(tokenizer: Tokenizer, sources: list[Source], cfg: TextConfig, n_ctx: int) -> TokenizedText:
    """Choose, tokenize and cut documents until there are about `cfg.n_tokens` tokens.

    Raises:
        UsageError: too few documents for a held-out split, or no sequence of two tokens.
    """
    documents: list[Document] = []
    sequences: list[TokenSequence] = []
    n_tokens = 0
    for document, encoding in _encoded(tokenizer, sources, cfg):
        pieces = _cut(tokenizer, encoding, n_ctx)
        if not pieces:
            continue
        for ids, start, end in pieces:
            sequences.append(TokenSequence(len(sequences), len(documents), ids, start, end))
            n_tokens += len(ids)
        text = document.text[: encoding.char_end[-1]]
        documents.append(Document(document.source, document.title, text))
        if n_tokens >= cfg.n_tokens:
            break
    if len(documents) < 2:
        raise UsageError(f"{len(documents)} usable document(s): at least 2 are needed, one of them to hold out")
    return TokenizedText(tuple(documents), _held_out(documents, sequences, cfg), tuple(sequences))


def _encoded(tokenizer: Tokenizer, sources: list[Source], cfg: TextConfig) -> Iterator[tuple[Document, Encoding]]:
    sizes: dict[int, Encoding] = {}

    def size(document: Document) -> int:
        encoding = tokenizer.encode(document.text)
        sizes[id(document)] = Encoding(*(column[: cfg.max_doc_tokens] for column in encoding))
        return len(sizes[id(document)].ids)

    for document in mixed(sources, cfg.document_seed, size):
        yield document, sizes.pop(id(document))


Piece = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _cut(tokenizer: Tokenizer, encoding: Encoding, n_ctx: int) -> list[Piece]:
    bos = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
    step = n_ctx - len(bos)
    unknown = (-1,) * len(bos)
    pieces = [
        (
            bos + tuple(encoding.ids[i : i + step]),
            unknown + tuple(encoding.char_start[i : i + step]),
            unknown + tuple(encoding.char_end[i : i + step]),
        )
        for i in range(0, len(encoding.ids), step)
    ]
    if len(pieces) > 1 and len(pieces[-1][0]) < MIN_TAIL_TOKENS:
        pieces.pop()
    return [piece for piece in pieces if len(piece[0]) > 1]


def _held_out(documents: Sequence[Document], sequences: Sequence[TokenSequence], cfg: TextConfig) -> tuple[bool, ...]:
    """Documents in the order of their texts' hashes, until they make up the share: one text is never on both sides."""
    ranks = [
        hashlib.sha256(f"{cfg.document_seed}\0{document.text}".encode("utf-8", "replace")).hexdigest()
        for document in documents
    ]
    size: dict[str, int] = dict.fromkeys(sorted(ranks), 0)
    for sequence in sequences:
        size[ranks[sequence.doc_id]] += len(sequence)
    wanted = cfg.heldout * sum(size.values())
    held: set[str] = set()
    for rank in list(size)[:-1]:
        held.add(rank)
        wanted -= size[rank]
        if wanted <= 0:
            break
    return tuple(rank in held for rank in ranks)


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right to one length."""

    sequences: tuple[TokenSequence, ...]
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    """True on tokens, False on padding."""


def batches(sequences: Sequence[TokenSequence], batch_size: int) -> Iterator[Batch]:
    """Batches of sequences of like length, so that little is padding; the order depends only on the input."""
    ordered = sorted(sequences, key=lambda sequence: (-len(sequence), sequence.seq))
    for i in range(0, len(ordered), batch_size):
        yield pad(tuple(ordered[i : i + batch_size]))


def pad(sequences: tuple[TokenSequence, ...]) -> Batch:
    """One batch, padded with zeros that the mask hides: some models pad with a real token, so no id is special."""
    width = max(len(sequence) for sequence in sequences)
    tokens = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence.ids)
        mask[row, : len(sequence)] = True
    return Batch(sequences, tokens, mask)
