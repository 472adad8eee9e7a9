"""Text in: a corpus by reference, as documents in a seeded order, mixed by share."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from activations.corpora import CORPORA
from activations.documents import DATASET, Document, Message, Source, TextConfig
from activations.hub_datasets import dataset_source
from activations.references import local_source, remote_source, wheel_source
from store.hashing import sha256_texts

__all__ = ["Document", "Message", "Source", "TextConfig", "mixed", "read_sources", "sources_hash"]

SCHEMES: dict[str, Callable[[str, TextConfig], Source]] = {
    DATASET: dataset_source,
    "wheel:": wheel_source,
}
"""Who opens a reference that begins so; it gets what follows."""


def read_sources(cfg: TextConfig) -> list[Source]:
    """Where the documents of a corpus come from; little more is read than tells that there is text.

    Raises:
        UsageError: no such corpus or file, no text in it, or what is read of it is damaged.
    """
    if cfg.corpus in CORPORA:
        return CORPORA[cfg.corpus]()
    for scheme, open_source in SCHEMES.items():
        if cfg.corpus.startswith(scheme):
            return [open_source(cfg.corpus.removeprefix(scheme), cfg)]
    return [(remote_source if "://" in cfg.corpus else local_source)(cfg.corpus, cfg)]


def sources_hash(sources: Iterable[Source]) -> str:
    """SHA-256 over every source's name, share and fingerprint."""
    return sha256_texts(part for source in sources for part in (source.name, repr(source.share), source.fingerprint))


def mixed(sources: Sequence[Source], seed: int, size: Callable[[Document], int]) -> Iterator[Document]:
    """All documents in a seeded order in which every source keeps its share of the total size so far."""
    waiting = {source.name: source.open(seed) for source in sources}
    share = {source.name: source.share for source in sources}
    taken = dict.fromkeys(waiting, 0.0)
    while waiting:
        name = min(waiting, key=lambda key: (taken[key] / share[key], key))
        document = next(waiting[name], None)
        if document is None:
            del waiting[name]
            continue
        taken[name] += size(document)
        yield document
