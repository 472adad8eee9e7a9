"""Questions about one latent, answered from the published index as plain frozen types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from store.errors import UsageError
from store.feature_index import FeatureIndex, Fired
from store.token_map import Spans


@dataclass(frozen=True)
class Window:
    """A stretch of one document around a peak."""

    band: str
    """`top`; `q1` (weakest quarter of peaks) to `q4`; `v1` to `v4`, of equal width in value; `near`; `silent`; or
    `given`, where the place was."""
    value: float
    """Activation at the peak; of a near miss its pre-activation."""
    doc_id: int
    source: str
    title: str
    split: str
    """`train` or `heldout`."""
    seq: int
    start: int
    """Position of the first token within its sequence."""
    peak: int
    """Index of the peak within `tokens`."""
    tokens: tuple[str, ...]
    """Text of each token, cut from the document; joined they are the document's own text."""
    token_ids: tuple[int, ...]
    values: tuple[float, ...]
    """The latent's activation on each token; 0 where it is silent."""
    weight: float = 1.0
    """Peaks of its band that it stands for; of a silent one, silent occurrences of its token."""
    n_same: int = 1
    """Contexts that read the same, itself included."""
    chars: tuple[int, int] = (-1, -1)
    """The document's characters that it spans; -1 for none."""

    @property
    def text(self) -> str:
        """The window's text."""
        return "".join(self.tokens)


CONTEXTS = "SELECT * FROM contexts WHERE latent = ? AND (? IS NULL OR band = ?)"
BANDS = ("top", "q", "v", "near", "silent")
"""In the order in which they are shown, each from strong to weak."""


def windows(index: FeatureIndex, latent: int, band: str | None = None) -> list[Window]:
    """The stored contexts of a latent: `top`, then both kinds of bands from strong to weak, near misses, silent ones.

    Args:
        index: where to look.
        latent: its number.
        band: only this band, if given.
    """
    rows = index.arrow(CONTEXTS, [latent, band, band]).to_pylist()
    rows.sort(key=_shown)
    seq, start = (np.array([row[name] for row in rows], np.int64) for name in ("seq", "start"))
    firsts = index.tokens.places(seq, start).tolist()
    return [_stored(index, row, first) for row, first in zip(rows, firsts, strict=True)]


def _shown(row: dict[str, Any]) -> tuple[int, int, int]:
    name = row["band"].rstrip("0123456789")
    number = row["band"].removeprefix(name)
    return BANDS.index(name), -int(number or 0), row["rank"]


def _stored(index: FeatureIndex, row: dict[str, Any], first: int) -> Window:
    values = [0.0] * (row["stop"] - row["start"])
    for at, value in zip(row["active_at"], row["activations"], strict=True):
        values[at] = value
    return Window(
        band=row["band"],
        value=row["value"],
        doc_id=row["doc_id"],
        source=row["source"],
        title=row["title"],
        split=row["split"],
        seq=row["seq"],
        start=row["start"],
        peak=row["pos"] - row["start"],
        tokens=index.tokens.texts(first, first + len(values)),
        token_ids=tuple(index.tokens.token_ids[first : first + len(values)].tolist()),
        values=tuple(values),
        weight=row["weight"],
        n_same=row["n_same"],
        chars=(row["char_start"], row["char_end"]),
    )


def windows_at(
    index: FeatureIndex, latent: int, places: np.ndarray, spans: Spans, values: np.ndarray, fired: Fired | None = None
) -> list[Window]:
    """Windows at given places; each must lie within the document of its place.

    Args:
        index: where to look.
        latent: whose activations are shown.
        places: `[n]` of the peaks.
        spans: `[n]` windows around them.
        values: `[n]` at the peaks.
        fired: the latent's events, if they are at hand.
    """
    if not len(places):
        return []
    fired = index.events(latent) if fired is None else fired
    return list(windows_of(index, [Shown(places, spans, values, fired)])[0])


class Shown(NamedTuple):
    """Where windows of one latent are wanted; each must lie within the document of its place."""

    places: np.ndarray
    """`[n]` of the peaks."""
    spans: Spans
    """`[n]` windows around them."""
    values: np.ndarray
    """`[n]` at the peaks."""
    fired: Fired
    """The latent's events."""


def windows_of(index: FeatureIndex, shown: Sequence[Shown]) -> list[tuple[Window, ...]]:
    """Windows of several latents, or of one at several kinds of places: their documents are looked up together."""
    docs = [index.tokens.documents(each.places) for each in shown]
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *docs])).tolist()
    about = index.titles(ids)
    return [_windows(index, each, own, about) for each, own in zip(shown, docs, strict=True)]


def _windows(
    index: FeatureIndex, shown: Shown, docs: np.ndarray, about: Mapping[int, dict[str, Any]]
) -> tuple[Window, ...]:
    """The windows at some places, whose documents are `docs`."""
    fired, spans = shown.fired, shown.spans
    on = index.tokens.places(fired.seq, fired.pos)
    seq, pos = index.tokens.positions(shown.places)
    found = []
    for i, place in enumerate(shown.places.tolist()):
        start, stop = int(spans.start[i]), int(spans.stop[i])
        low, high = np.searchsorted(on, [start, stop])
        values = np.zeros(stop - start)
        values[on[low:high] - start] = fired.value[low:high]
        at = {"seq": int(seq[i]), "start": int(pos[i]) - (place - start), "peak": place - start}
        found.append(_given(index, start, values, about[int(docs[i])] | at | {"value": float(shown.values[i])}))
    return tuple(found)


def _given(index: FeatureIndex, first: int, values: np.ndarray, about: dict[str, Any]) -> Window:
    """The window whose first token is at place `first`."""
    stop = first + len(values)
    return Window(
        band="given",
        tokens=index.tokens.texts(first, stop),
        token_ids=tuple(index.tokens.token_ids[first:stop].tolist()),
        values=tuple(values.tolist()),
        **about,
    )


def token_texts(text: str, char_start: list[int], char_end: list[int]) -> tuple[str, ...]:
    """Each token's own characters; joined, they are the text between the first token's start and the last one's end.

    Tokens that share one character (a character of several byte tokens) give it to the first of them.
    """
    pieces: list[str] = []
    reached = next((start for start in char_start if start >= 0), 0)
    for start, end in zip(char_start, char_end, strict=True):
        # What lies between two spans (a space that the tokenizer drops) belongs to the later token.
        pieces.append(text[reached:end] if start >= 0 and end > reached else "")
        reached = max(reached, end)
    return tuple(pieces)


@dataclass(frozen=True)
class Logit:
    """One token that the latent's decoder direction promotes or suppresses."""

    token_id: int
    token: str
    value: float


LISTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ngrams": lambda row: (row["n"], row["rank"]),
    "neighbours": lambda row: (row["side"], row["rank"]),
    "coactivations": lambda row: (-row["phi"], row["other"]),
    "explanations": lambda row: row["run"],
    "scores": lambda row: (row["run"], row["arm"]),
}
"""What a page lists of a latent besides its statistics, by what it is sorted: sooner here than in a planned query."""


@dataclass(frozen=True)
class LatentPage:
    """All that is stored of one latent but its contexts."""

    latent: int
    statistics: dict[str, Any]
    """The row of `latents`, without the histogram."""
    histogram: np.ndarray
    """`[n_bins]` counts of active values in equal-width bins over (min(0, min), max]."""
    promoted: tuple[Logit, ...]
    suppressed: tuple[Logit, ...]
    explanations: tuple[dict[str, Any], ...]
    """Rows of `explanations`."""
    scores: tuple[dict[str, Any], ...]
    """Rows of `scores`; `arm` tells the score from its null."""
    ngrams: tuple[dict[str, Any], ...] = ()
    """Rows of `ngrams`: the commonest tokens, and pairs of tokens, on which it fires."""
    neighbours: tuple[dict[str, Any], ...] = ()
    """Rows of `neighbours`, nearest first on each side."""
    coactivations: tuple[dict[str, Any], ...] = ()
    """Rows of `coactivations`, by φ."""

    @property
    def alive(self) -> bool:
        """Whether it fired at all on the harvested text."""
        return self.statistics["n_fired"] > 0


def latent_page(index: FeatureIndex, latent: int) -> LatentPage:
    """Everything stored of `latent` but its contexts.

    Raises:
        UsageError: there is no such latent.
    """
    tables = ("latents", "logits", *LISTS)
    answers = index.arrows([f"SELECT * FROM {table} WHERE latent = ?" for table in tables], [latent])
    found = {table: answer.to_pylist() for table, answer in zip(tables, answers, strict=True)}
    if not found["latents"]:
        raise UsageError(f"there is no latent {latent}: choose 0 to {index.n_latents - 1}")
    statistics = found["latents"][0]
    histogram = np.asarray(statistics.pop("histogram"), dtype=np.int64)
    logits = sorted(found["logits"], key=lambda row: row["rank"])
    sides = {
        side: tuple(Logit(row["token_id"], row["token"], row["value"]) for row in logits if row["side"] == side)
        for side in ("top", "bottom")
    }
    return LatentPage(
        latent=latent,
        statistics=statistics,
        histogram=histogram,
        promoted=sides["top"],
        suppressed=sides["bottom"],
        **{name: tuple(sorted(found[name], key=order)) for name, order in LISTS.items()},
    )
