"""Contexts to explain from and contexts to score on, disjoint by document for every latent at once."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from autointerp.latent import Evidence, Trial
from store.errors import UsageError
from store.index import FeatureIndex
from store.latents import LatentPage, Window, latent_page, windows_at


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
        self._explain_docs = [doc_id for doc_id in docs if explain_side(doc_id, cfg.seed)]
        sequences = index.arrow("SELECT seq, doc_id, len(token_ids) AS n, char_start[1] < 0 AS bos FROM sequences")
        rows = sequences.to_pylist()
        self._length = {row["seq"]: row["n"] for row in rows}
        self._first = {row["seq"]: int(row["bos"]) for row in rows}
        explain = set(self._explain_docs)
        self._score_seqs = sorted(row["seq"] for row in rows if row["doc_id"] not in explain)

    def choose(self, n: int) -> list[int]:
        """`n` latents drawn at random from those with enough contexts on both sides, ascending.

        Raises:
            UsageError: no latent has enough.
        """
        found = self.index.arrow(ELIGIBLE, [self._explain_docs, self.cfg.max_density]).to_pylist()
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
        rows = self.index.arrow(PEAKS, [latent, self._explain_docs, explain]).to_pylist()
        random = np.random.default_rng([self.cfg.seed, latent, int(explain)])
        # One draw from each of n equal-count strata of the ordered peaks: all strengths are judged, not only the top.
        strata = [part for part in np.array_split(np.arange(len(rows)), min(n, len(rows))) if len(part)]
        chosen = [rows[int(random.choice(part))] for part in strata]
        return tuple(windows_at(self.index, latent, [self._place(row) for row in chosen]))

    def _silent(self, latent: int, n: int) -> tuple[Window, ...]:
        """Windows at random places of the score side in which the latent is silent; fewer if they are hard to find."""
        random = np.random.default_rng([self.cfg.seed, latent, 2])
        fired: dict[int, list[int]] = {}
        for row in self.index.arrow("SELECT seq, pos FROM events WHERE latent = ?", [latent]).to_pylist():
            fired.setdefault(row["seq"], []).append(row["pos"])
        places: dict[tuple[int, int], dict[str, Any]] = {}
        for _ in range(50 * n):
            seq = int(random.choice(self._score_seqs))
            pos = int(random.integers(self._first[seq], self._length[seq]))
            place = self._place({"seq": seq, "pos": pos, "value": 0.0})
            if not any(place["start"] <= at < place["stop"] for at in fired.get(seq, [])):
                places[(seq, pos)] = place
            if len(places) == n:
                break
        return tuple(windows_at(self.index, latent, list(places.values())))

    def _place(self, row: dict[str, Any]) -> dict[str, Any]:
        seq, pos = row["seq"], row["pos"]
        start = max(pos - self.cfg.half_window, self._first[seq])
        return {**row, "start": start, "stop": min(pos + self.cfg.half_window + 1, self._length[seq])}


ELIGIBLE = """
WITH per_latent AS (
    SELECT e.latent, s.doc_id, e.seq, s.doc_id IN (SELECT unnest(?::BIGINT[])) AS explain
    FROM events e JOIN sequences s USING (seq)
)
SELECT latent,
       count(DISTINCT seq) FILTER (explain) AS explain_contexts,
       count(DISTINCT seq) FILTER (NOT explain) AS score_contexts,
       count(DISTINCT doc_id) FILTER (explain) AS explain_docs,
       count(DISTINCT doc_id) FILTER (NOT explain) AS score_docs
FROM per_latent WHERE latent IN (SELECT latent FROM latents WHERE density <= ?)
GROUP BY latent ORDER BY latent
"""
PEAKS = """
SELECT e.seq, arg_max(e.pos, e.value) AS pos, max(e.value) AS value
FROM events e JOIN sequences s USING (seq)
WHERE e.latent = ? AND (s.doc_id IN (SELECT unnest(?::BIGINT[]))) = ?
GROUP BY e.seq ORDER BY value DESC, e.seq
"""
