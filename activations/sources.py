"""Sources: documents in a seeded order, all of them shuffled if they are in memory, a buffer of them if they stream."""

import logging
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing

from activations.documents import Document, Source
from store.errors import UsageError
from store.hashing import sha256_texts

SHUFFLE_DOCUMENTS = 1000
"""Documents of a stream that wait in memory to be shuffled."""
SHUFFLE_CHARS = 50_000_000
"""Fewer wait when they have more characters than this together."""

log = logging.getLogger(__name__)


def in_memory(groups: Sequence[tuple[str, float, Sequence[Document]]]) -> list[Source]:
    """A source for each name, share and documents, fully shuffled; groups without text are left out."""
    kept = [(name, share, tuple(filter(has_text, documents))) for name, share, documents in groups]
    kept = [group for group in kept if group[2]]
    return [
        Source(name, share, _Shuffled(documents, [len(group[2]) for group in kept[:place]]), _hash(documents))
        for place, (name, share, documents) in enumerate(kept)
    ]


class _Shuffled:
    """Documents in a seeded order; the sources of one corpus draw from one stream of random numbers, in turn."""

    def __init__(self, documents: tuple[Document, ...], sizes_before: list[int]) -> None:
        self._documents, self._sizes_before = documents, sizes_before

    def __call__(self, seed: int) -> Iterator[Document]:
        order = random.Random(seed)
        for size in self._sizes_before:
            order.sample(range(size), size)
        return reversed(order.sample(self._documents, len(self._documents)))


def streamed(
    name: str, reference: str, fingerprint: str, read: Callable[[random.Random | None], Iterator[Document]]
) -> Source:
    """A source whose documents are read anew each time, and shuffled in a buffer.

    Args:
        name: of the source.
        reference: what errors call it.
        fingerprint: what makes two texts the same text.
        read: all documents; in the order of the files, or in one that a random number generator decides.

    Raises:
        UsageError: there is no text in it, or what comes before the first text cannot be read.
    """
    with closing(_with_text(name, read(None))) as documents:
        if next(documents, None) is None:
            raise UsageError(f"there is no text in '{reference}': give a file with at least one non-empty document")

    def opened(seed: int) -> Iterator[Document]:
        return shuffled(_with_text(name, read(random.Random(seed))), seed)

    return Source(name, 1.0, opened, fingerprint)


def shuffled(documents: Iterable[Document], seed: int) -> Iterator[Document]:
    """Documents in a seeded order, with a bounded number of them in memory; a short stream is shuffled fully."""
    order = random.Random(seed)
    waiting: list[Document] = []
    n_chars = 0
    for document in documents:
        waiting.append(document)
        n_chars += length(document)
        del document
        while len(waiting) > SHUFFLE_DOCUMENTS or n_chars > SHUFFLE_CHARS:
            place = order.randrange(len(waiting))
            waiting[place], waiting[-1] = waiting[-1], waiting[place]
            n_chars -= length(waiting[-1])
            yield waiting.pop()
    waiting = order.sample(waiting, len(waiting))
    while waiting:
        yield waiting.pop()


def length(document: Document) -> int:
    """Characters of a text, or of all turns of a chat."""
    return len(document.text) + sum(len(message.content) for message in document.messages)


def has_text(document: Document) -> bool:
    """Whether there is anything but white space."""
    texts = (document.text, *(message.content for message in document.messages))
    # Not `strip`, which copies: a text may be most of the memory.
    return any(text and not text.isspace() for text in texts)


def _with_text(name: str, documents: Iterator[Document]) -> Generator[Document, None, None]:
    n_empty = 0
    for document in documents:
        if has_text(document):
            yield document
        else:
            n_empty += 1
    if n_empty:
        log.info("%s: %d documents have no text and are left out", name, n_empty)


def _hash(documents: Iterable[Document]) -> str:
    return sha256_texts(part for document in documents for part in (document.source, document.title, document.text))
