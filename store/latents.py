"""Questions about one latent, answered from the published index as plain frozen types."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from store.errors import UsageError
from store.index import FeatureIndex


@dataclass(frozen=True)
class Window:
    """A stretch of one document around a peak."""

    band: str
    """`top`, or `q1` (weakest quarter of peaks) to `q4`."""
    value: float
    """Activation at the peak."""
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
    """Text of each token, cut from the document by character span; joined they are the document's own text."""
    token_ids: tuple[int, ...]
    values: tuple[float, ...]
    """The latent's activation on each token; 0 where it is silent."""

    @property
    def text(self) -> str:
        """The window's text."""
        return "".join(self.tokens)


CONTEXTS_QUERY = """
SELECT c.band, c.value, c.doc_id, d.source, d.title, d.split, c.seq, c.start, c.pos, c.stop,
       s.token_ids[c.start + 1 : c.stop] AS token_ids,
       s.char_start[c.start + 1 : c.stop] AS char_start, s.char_end[c.start + 1 : c.stop] AS char_end, d.text
FROM {source} c JOIN sequences s USING (seq) JOIN documents d ON d.doc_id = c.doc_id
ORDER BY c.band = 'top' DESC, c.band DESC, c.rank
"""


def windows(index: FeatureIndex, latent: int, band: str | None = None) -> list[Window]:
    """The stored contexts of a latent, `top` first and then the bands from strong to weak.

    Args:
        index: where to look.
        latent: its number.
        band: only this band, if given.
    """
    source = "(SELECT * FROM contexts WHERE latent = ? AND (? IS NULL OR band = ?))"
    return _windows(index, latent, source, [latent, band, band])


def windows_at(index: FeatureIndex, latent: int, places: list[dict[str, Any]]) -> list[Window]:
    """Windows at given places: each with keys `seq pos start stop`, and optionally `value band`.

    The document is the one of the token at `pos`: the window must lie within it.
    """
    if not places:
        return []
    rows = ", ".join(
        f"({int(place['seq'])}, {int(place['pos'])}, {int(place['start'])}, {int(place['stop'])}, "
        f"{float(place.get('value', 0.0))}, {rank})"
        for rank, place in enumerate(places)
    )
    source = (
        "(SELECT v.*, s.doc_ids[v.pos + 1] AS doc_id, 'given' AS band "
        f"FROM (VALUES {rows}) v(seq, pos, start, stop, value, rank) JOIN sequences s USING (seq))"
    )
    return _windows(index, latent, source, [])


def _windows(index: FeatureIndex, latent: int, source: str, parameters: list[Any]) -> list[Window]:
    rows = index.arrow(CONTEXTS_QUERY.format(source=source), parameters).to_pylist()
    events = index.arrow(
        f"SELECT e.seq, e.pos, e.value FROM events e WHERE e.latent = ? AND e.seq IN (SELECT seq FROM {source})",
        [latent, *parameters],
    ).to_pydict()
    value_at = {
        (seq, pos): value for seq, pos, value in zip(events["seq"], events["pos"], events["value"], strict=True)
    }
    return [_window(row, value_at) for row in rows]


def _window(row: dict[str, Any], value_at: dict[tuple[int, int], float]) -> Window:
    positions = range(row["start"], row["stop"])
    return Window(
        band=row["band"],
        value=float(row["value"]),
        doc_id=row["doc_id"],
        source=row["source"],
        title=row["title"],
        split=row["split"],
        seq=row["seq"],
        start=row["start"],
        peak=row["pos"] - row["start"],
        tokens=token_texts(row["text"], row["char_start"], row["char_end"]),
        token_ids=tuple(row["token_ids"]),
        values=tuple(float(value_at.get((row["seq"], pos), 0.0)) for pos in positions),
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


@dataclass(frozen=True)
class LatentPage:
    """All that is stored of one latent but its contexts."""

    latent: int
    statistics: dict[str, Any]
    """The row of `latents`, without the histogram."""
    histogram: np.ndarray
    """`[n_bins]` counts of active values in equal-width bins over (0, max]."""
    promoted: tuple[Logit, ...]
    suppressed: tuple[Logit, ...]
    explanations: tuple[dict[str, Any], ...]
    """Rows of `explanations`."""
    scores: tuple[dict[str, Any], ...]
    """Rows of `scores`; `arm` tells the score from its null."""

    @property
    def alive(self) -> bool:
        """Whether it fired at all on the harvested text."""
        return self.statistics["n_fired"] > 0


def latent_page(index: FeatureIndex, latent: int) -> LatentPage:
    """Everything stored of `latent` but its contexts.

    Raises:
        UsageError: there is no such latent.
    """
    rows = index.arrow("SELECT * FROM latents WHERE latent = ?", [latent]).to_pylist()
    if not rows:
        n_latents = index.arrow("SELECT count(*) AS n FROM latents").to_pylist()[0]["n"]
        raise UsageError(f"there is no latent {latent}: choose 0 to {n_latents - 1}")
    histogram = np.asarray(rows[0].pop("histogram"), dtype=np.int64)
    logits = index.arrow("SELECT * FROM logits WHERE latent = ? ORDER BY side, rank", [latent]).to_pylist()
    sides = {
        side: tuple(Logit(row["token_id"], row["token"], row["value"]) for row in logits if row["side"] == side)
        for side in ("top", "bottom")
    }
    return LatentPage(
        latent=latent,
        statistics=rows[0],
        histogram=histogram,
        promoted=sides["top"],
        suppressed=sides["bottom"],
        explanations=tuple(index.arrow("SELECT * FROM explanations WHERE latent = ?", [latent]).to_pylist()),
        scores=tuple(index.arrow("SELECT * FROM scores WHERE latent = ? ORDER BY run, arm", [latent]).to_pylist()),
    )
