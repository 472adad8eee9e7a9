"""Which documents are held out of training: decided by their text, so that one text is never on both sides."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from activations.encode import EncodedDocument
from activations.sequences import NumberedDocument
from store.errors import UsageError

LOOK_AHEAD = 1000
"""Documents read before the rule is set: the share is exact for as many, and close to it for more."""


class Split:
    """Gives documents their numbers and their side: held out when the hash of their text is not above a bound."""

    def __init__(self, share: float, seed: int) -> None:
        """`share` of the tokens is to be held out."""
        self._share, self._seed = share, seed
        self.bound = ""
        """The highest hash that is held out, 64 hex digits; set when the first documents were read."""

    def numbered(self, documents: Iterable[EncodedDocument]) -> Iterator[NumberedDocument]:
        """The documents in order.

        Raises:
            UsageError: fewer than two different documents.
        """
        documents = iter(documents)
        first = list(islice(documents, LOOK_AHEAD))
        self.bound = _bound(first, self._share, self._seed)
        for doc_id, tokens in enumerate(chain(first, documents)):
            yield NumberedDocument(doc_id, _rank(tokens, self._seed) <= self.bound, tokens)


def _rank(tokens: EncodedDocument, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{tokens.document.text}".encode("utf-8", "replace")).hexdigest()


def _bound(documents: list[EncodedDocument], share: float, seed: int) -> str:
    """The highest hash of those that are held out: the lowest ones that make up the share of tokens, never all."""
    size: dict[str, int] = {}
    for tokens in documents:
        rank = _rank(tokens, seed)
        size[rank] = size.get(rank, 0) + len(tokens)
    if len(size) < 2:
        raise UsageError(
            f"{len(documents)} usable document(s), {len(size)} of them different: at least 2 are needed, one of them "
            "to hold out. For a text that is one file, `--documents paragraph` or `line` makes several of it"
        )
    wanted = share * sum(size.values())
    bound = ""
    for rank in sorted(size)[:-1]:
        bound = rank
        wanted -= size[rank]
        if wanted <= 0:
            break
    return bound
