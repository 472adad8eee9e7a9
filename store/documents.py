"""One document as a whole, with what a latent does on it."""

from dataclasses import dataclass

import numpy as np

from store.errors import UsageError
from store.feature_index import FeatureIndex

MOST_TOKENS = 20_000
"""Of a longer document, so many around the place that is looked at."""


@dataclass(frozen=True)
class Document:
    """A document, or of a long one a stretch, as tokens with a latent's activations."""

    doc_id: int
    source: str
    title: str
    split: str
    """`train` or `heldout`."""
    latent: int
    tokens: tuple[str, ...]
    """Joined they are the text; what lies between harvested stretches is a token of its own."""
    values: tuple[float, ...]
    """The latent's activation on each; 0 where it is silent."""
    place: int
    """Which of the tokens was asked for."""
    n_tokens: int
    """Of the whole document, as harvested."""
    n_before: int
    """Tokens left out before the first."""
    n_after: int
    """Tokens left out after the last."""
    rest: str
    """The document's text after its last token: it was not harvested."""


def document_at(index: FeatureIndex, latent: int, seq: int, pos: int, most: int = MOST_TOKENS) -> Document:
    """The document of a token.

    Args:
        index: where to look.
        latent: whose activations are shown.
        seq: the token's sequence.
        pos: its position there.
        most: tokens at most.

    Raises:
        UsageError: there is no such token, or no such latent.
    """
    tokens = index.tokens
    row = int(np.searchsorted(tokens.seqs, seq))
    if row == len(tokens.seqs) or tokens.seqs[row] != seq or not 0 <= pos < np.diff(tokens.offsets[row : row + 2])[0]:
        raise UsageError(f"there is no token {pos} of sequence {seq}: open a document from one of its contexts")
    place = int(tokens.offsets[row]) + pos
    doc_id = int(tokens.documents(np.array([place]))[0])
    places = _places(index, doc_id)
    at = int(np.flatnonzero(places == place)[0]) if place in places else int(np.searchsorted(places, place))
    first = max(min(at - most // 2, len(places) - most), 0)
    shown = places[first : first + most]
    texts, values, where = _pieces(index, latent, doc_id, shown)
    about = index.titles([doc_id])[doc_id]
    left = tokens.document(doc_id)[int(tokens.char_end[places].max(initial=0)) :]
    return Document(
        doc_id=doc_id,
        source=about["source"],
        title=about["title"],
        split=about["split"],
        latent=latent,
        tokens=texts,
        values=values,
        place=where[min(at - first, len(where) - 1)],
        n_tokens=len(places),
        n_before=first,
        n_after=len(places) - first - len(shown),
        rest=left,
    )


def _places(index: FeatureIndex, doc_id: int) -> np.ndarray:
    """`[n]` of the document's tokens that stand for text, in the text's order, each stretch of text once."""
    tokens = index.tokens
    pieces = np.flatnonzero(tokens.piece_doc == doc_id)
    spans = [np.arange(tokens.piece_start[i], tokens.piece_stop[i]) for i in pieces.tolist()]
    places = np.concatenate([np.empty(0, np.int64), *spans])
    places = places[tokens.char_start[places] >= 0]
    places = places[np.argsort(tokens.char_start[places], kind="stable")]
    # Windows may overlap: what was read twice is shown as it was read first.
    reached = np.concatenate([[-1], np.maximum.accumulate(tokens.char_end[places])[:-1]])
    fresh = (tokens.char_start[places] >= reached) | (tokens.char_end[places] > reached)
    return places[fresh] if len(places) else places


def _pieces(
    index: FeatureIndex, latent: int, doc_id: int, places: np.ndarray
) -> tuple[tuple[str, ...], tuple[float, ...], list[int]]:
    """The texts and activations of the tokens at `places` and of what lies between them; where each place went."""
    fired = index.events(latent)
    on = index.tokens.places(fired.seq, fired.pos)
    at = np.searchsorted(on, places)
    hit = (at < len(on)) & (on[np.minimum(at, len(on) - 1)] == places) if len(on) else np.zeros(len(places), bool)
    own = np.where(hit, fired.value[np.minimum(at, len(on) - 1)], 0.0) if len(on) else np.zeros(len(places))
    text = index.tokens.document(doc_id)
    starts, ends = index.tokens.char_start[places].tolist(), index.tokens.char_end[places].tolist()
    texts: list[str] = []
    values: list[float] = []
    where: list[int] = []
    reached = starts[0] if starts else 0
    for start, end, value in zip(starts, ends, own.tolist(), strict=True):
        if start > reached and texts and start - reached > 1:
            texts.append(text[reached:start])
            values.append(0.0)
            reached = start
        where.append(len(texts))
        texts.append(text[reached:end] if end > reached else "")
        values.append(value)
        reached = max(reached, end)
    return tuple(texts), tuple(values), where
