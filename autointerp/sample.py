"""Contexts to explain from and contexts to score on, disjoint by document for every latent at once."""

import hashlib
from dataclasses import dataclass

import numpy as np

from autointerp.contexts import Layout, Spans
from autointerp.latent import Evidence, Trial
from store.errors import UsageError
from store.index import FeatureIndex
from store.latents import LatentPage, Window, latent_page, windows_at

DRAWS_PER_WINDOW = 50
"""Places tried for every silent window wanted."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How contexts are drawn."""

    n_explain: int = 30
    """Active contexts an explainer sees."""
    n_score: int = 50
    """Active contexts, and as many silent ones, that a scorer judges."""
    min_contexts: int = 8
    """Latents with fewer active contexts on either side are not chosen."""
    min_docs: int = 4
    """Nor those that fire in fewer documents on either side."""
    max_density: float = 0.02
    """Nor those that fire on more than this share of tokens: few windows are silent."""
    half_window: int = 5
    """Tokens on either side of the peak: explanations of a token and what precedes it are judged near the token."""
    seed: int = 0


def explain_side(doc_id: int, seed: int) -> bool:
    """Whether a document may be shown to explainers; all others are for scoring. The same for every latent, so that a
    shuffled explanation, which comes from another latent, has not seen the scoring documents either."""
    return hashlib.sha256(f"{seed}:{doc_id}".encode()).digest()[0] < 128


class Sampler:
    """Draws evidence and trials from a published index."""

    def __init__(self, index: FeatureIndex, cfg: SampleConfig) -> None:
        """Split the index's documents."""
        self.index, self.cfg = index, cfg
        docs = [row["doc_id"] for row in index.arrow("SELECT doc_id FROM documents ORDER BY doc_id").to_pylist()]
        self.explain_docs = [doc_id for doc_id in docs if explain_side(doc_id, cfg.seed)]
        sequences = index.arrow("SELECT seq, token_ids, doc_ids, char_start FROM sequences ORDER BY seq")
        self._layout = Layout.of(sequences)
        self._score_text = self._pieces_of_text(~np.isin(self._layout.doc_ids, self.explain_docs))

    def _pieces_of_text(self, wanted: np.ndarray) -> Spans:
        """Where in `layout.text` the wanted pieces are, without those that have none."""
        bounds = np.searchsorted(self._layout.text, self._layout.pieces)
        start, stop = bounds[:-1], bounds[1:]
        wanted = wanted & (start < stop)
        return Spans(start[wanted], stop[wanted])

    def choose(self, n: int) -> list[int]:
        """`n` latents drawn at random from those with enough contexts on both sides, ascending.

        Raises:
            UsageError: no latent has enough.
        """
        found = self.index.arrow(ELIGIBLE, [self.cfg.max_density, self.explain_docs]).to_pylist()
        enough = [
            row["latent"]
            for row in found
            if min(row["explain_contexts"], row["score_contexts"]) >= self.cfg.min_contexts
            and min(row["explain_docs"], row["score_docs"]) >= self.cfg.min_docs
        ]
        if not enough:
            raise UsageError(
                f"no latent fires in {self.cfg.min_contexts} contexts of {self.cfg.min_docs} documents on both sides: "
                "harvest more text"
            )
        random = np.random.default_rng([self.cfg.seed, 1])
        return sorted(int(latent) for latent in random.choice(enough, min(n, len(enough)), replace=False))

    def evidence(self, latent: int) -> Evidence:
        """Active contexts of the explain side, spread evenly over the latent's range of peaks, and its logits."""
        page: LatentPage = latent_page(self.index, latent)
        windows = self._active(latent, explain=True, n=self.cfg.n_explain)
        return Evidence(latent, windows, page.promoted, page.suppressed)

    def trial(self, latent: int) -> Trial:
        """Active and silent contexts of the score side."""
        active = self._active(latent, explain=False, n=self.cfg.n_score)
        return Trial(latent, active, self._silent(latent, len(active)))

    def _active(self, latent: int, *, explain: bool, n: int) -> tuple[Window, ...]:
        rows = self.index.arrow(PEAKS, [latent, self.explain_docs, explain]).to_pylist()
        if not rows:
            return ()
        random = np.random.default_rng([self.cfg.seed, latent, int(explain)])
        # One draw from each of n equal-count strata of the ordered peaks: all strengths are judged, not only the top.
        strata = np.array_split(np.arange(len(rows)), min(n, len(rows)))
        chosen = [rows[int(random.choice(part))] for part in strata]
        seq, pos, value = (np.array([row[name] for row in chosen]) for name in ("seq", "pos", "value"))
        return self._windows(latent, self._layout.places(seq, pos), value)

    def _silent(self, latent: int, n: int) -> tuple[Window, ...]:
        """Windows at random places of the score side in which the latent is silent; fewer if they are hard to find."""
        if not n:
            return ()
        random = np.random.default_rng([self.cfg.seed, latent, 2])
        piece = random.integers(len(self._score_text.start), size=DRAWS_PER_WINDOW * n)
        drawn = self._layout.text[random.integers(self._score_text.start[piece], self._score_text.stop[piece])]
        events = self.index.arrow("SELECT seq, pos FROM events WHERE latent = ? ORDER BY seq, pos", [latent])
        fired = self._layout.places(events.column("seq").to_numpy(), events.column("pos").to_numpy())
        spans = self._spans(drawn)
        silent = drawn[np.searchsorted(fired, spans.start) == np.searchsorted(fired, spans.stop)]
        first = np.sort(np.unique(silent, return_index=True)[1])[:n]
        return self._windows(latent, silent[first], np.zeros(len(first)))

    def _spans(self, places: np.ndarray) -> Spans:
        return self._layout.spans(places, self.cfg.half_window, self.cfg.half_window)

    def _windows(self, latent: int, places: np.ndarray, value: np.ndarray) -> tuple[Window, ...]:
        """The windows around `places`, each inside its document."""
        (seq, pos), spans = self._layout.positions(places), self._spans(places)
        columns = {
            "seq": seq,
            "pos": pos,
            "value": value,
            "start": pos + spans.start - places,
            "stop": pos + spans.stop - places,
        }
        given = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return tuple(windows_at(self.index, latent, given))


# A context is the strongest event in one document's tokens within one sequence, and on the side of that document.
ELIGIBLE = """
WITH per_piece AS (
    SELECT DISTINCT latent, seq, doc_id FROM events
    WHERE latent IN (SELECT latent FROM latents WHERE density <= ?)
), sided AS (
    SELECT latent, doc_id, doc_id IN (SELECT unnest(?::BIGINT[])) AS explain FROM per_piece
)
SELECT latent,
       count(*) FILTER (explain) AS explain_contexts,
       count(*) FILTER (NOT explain) AS score_contexts,
       count(DISTINCT doc_id) FILTER (explain) AS explain_docs,
       count(DISTINCT doc_id) FILTER (NOT explain) AS score_docs
FROM sided GROUP BY latent ORDER BY latent
"""
PEAKS = """
SELECT seq, arg_max(pos, value) AS pos, max(value) AS value
FROM events
WHERE latent = ? AND (doc_id IN (SELECT unnest(?::BIGINT[]))) = ?
GROUP BY seq, doc_id ORDER BY value DESC, seq, pos
"""
