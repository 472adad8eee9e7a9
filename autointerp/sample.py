"""Contexts to explain from and contexts to score on, disjoint by document for every latent at once."""

import hashlib
from dataclasses import dataclass

import numpy as np

from autointerp.index.groups import begins
from autointerp.latent import Evidence, Trial
from store.errors import UsageError
from store.feature_index import FeatureIndex, Fired
from store.latents import LatentPage, Window, latent_page, windows_at
from store.token_map import Spans

EVIDENCE = frozenset({"windows", "top", "silent", "neighbours", "logits"})
"""Parts of `Evidence` that an explainer can want."""
TRIAL = frozenset({"items", "neighbours"})
"""Parts of `Trial` that a scorer can want."""
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
        self.index, self.cfg, self._tokens = index, cfg, index.tokens
        self.explain_docs = [doc_id for doc_id in range(index.tokens.n_docs) if explain_side(doc_id, cfg.seed)]
        self._explains = np.zeros(index.tokens.n_docs, bool)
        self._explains[self.explain_docs] = True
        self._score_text = self._pieces_of_text(~self._explains[index.tokens.piece_doc])

    def _pieces_of_text(self, wanted: np.ndarray) -> Spans:
        """The places of the text of the wanted pieces, without those that have none."""
        start, stop = self._tokens.piece_start, self._tokens.piece_stop
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
        return Trial.of(latent, active, self._silent(latent, len(active)))

    def _active(self, latent: int, *, explain: bool, n: int) -> tuple[Window, ...]:
        fired = self.index.events(latent)
        places, values = self._peaks(fired, explain)
        if not len(places):
            return ()
        random = np.random.default_rng([self.cfg.seed, latent, int(explain)])
        # One draw from each of n equal-count strata of the ordered peaks: all strengths are judged, not only the top.
        strata = np.array_split(np.arange(len(places)), min(n, len(places)))
        chosen = np.array([random.choice(part) for part in strata])
        return self._windows(latent, places[chosen], values[chosen], fired)

    def _peaks(self, fired: Fired, explain: bool) -> tuple[np.ndarray, np.ndarray]:
        """Place and value of the strongest event in each document's tokens within one sequence, strongest first."""
        own = self._explains[fired.doc_id] == explain
        places, values = self._tokens.places(fired.seq[own], fired.pos[own]), fired.value[own]
        key = fired.seq[own].astype(np.int64) * self._tokens.n_docs + fired.doc_id[own]
        order = np.lexsort((places, -values, key))
        first = order[begins(key[order])]
        strongest = first[np.lexsort((places[first], -values[first]))]
        return places[strongest], values[strongest]

    def _silent(self, latent: int, n: int) -> tuple[Window, ...]:
        """Windows at random places of the score side in which the latent is silent; fewer if they are hard to find."""
        if not n:
            return ()
        query = "SELECT event_share FROM latents WHERE latent = ?"
        if self.index.arrow(query, [latent]).column(0)[0].as_py() < 1:
            raise UsageError(
                f"latent {latent} fires so often that not all of its events are kept, and where it is silent is not "
                "told: choose another, or index with a larger --max-events"
            )
        random = np.random.default_rng([self.cfg.seed, latent, 2])
        piece = random.integers(len(self._score_text.start), size=DRAWS_PER_WINDOW * n)
        drawn = random.integers(self._score_text.start[piece], self._score_text.stop[piece])
        drawn = drawn[self._tokens.char_start[drawn] >= 0]
        events = self.index.events(latent)
        fired = self._tokens.places(events.seq, events.pos)
        spans = self._spans(drawn)
        silent = drawn[np.searchsorted(fired, spans.start) == np.searchsorted(fired, spans.stop)]
        first = np.sort(np.unique(silent, return_index=True)[1])[:n]
        return self._windows(latent, silent[first], np.zeros(len(first)), events)

    def _spans(self, places: np.ndarray) -> Spans:
        return self._tokens.spans(places, self.cfg.half_window, self.cfg.half_window)

    def _windows(self, latent: int, places: np.ndarray, values: np.ndarray, fired: Fired) -> tuple[Window, ...]:
        """The windows around `places`, each inside its document."""
        return tuple(windows_at(self.index, latent, places, self._spans(places), values, fired))


# A context is the strongest event in one document's tokens within one sequence, and on the side of that document.
ELIGIBLE = """
WITH per_piece AS (
    SELECT DISTINCT latent, seq, doc_id FROM events
    WHERE latent IN (SELECT latent FROM latents WHERE density <= ? AND event_share = 1)
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
