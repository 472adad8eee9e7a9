"""Contexts to explain from and contexts to score on, disjoint by document for every latent at once.

Nothing is kept of a latent: what a draw takes is the events of it and of its nearest neighbours.
"""

import hashlib
from collections.abc import Set
from typing import Any, NamedTuple

import numpy as np

from autointerp.latent import ACTIVE, Evidence, Item, Neighbour, Trial
from autointerp.sample_config import SampleConfig
from autointerp.sample_side import Events, Peaks, Side
from autointerp.sample_silent import fires_at, marks, silent_places, spread
from store.errors import UsageError
from store.feature_index import FeatureIndex, Fired
from store.latents import Logit, Window, windows_at

EVIDENCE = frozenset({"windows", "top", "silent", "neighbours", "logits"})
"""Parts of `Evidence` that an explainer can want."""
TRIAL = frozenset({"items", "neighbours"})
"""Parts of `Trial` that a scorer can want."""
PARTS = ("score", "explain", "select")
"""Purposes of documents; `select` has some only if `SampleConfig.select_share` says so."""
SHOWN = 5
"""Latents named in a message."""


def explain_side(doc_id: int, seed: int) -> bool:
    """Whether a document may be shown to explainers; all others are for scoring. The same for every latent, so that a
    shuffled explanation, which comes from another latent, has not seen the scoring documents either."""
    return hashlib.sha256(f"{seed}:{doc_id}".encode()).digest()[0] < 128


def select_side(doc_id: int, seed: int, share: float) -> bool:
    """Whether a document that no explainer is shown is for choosing among explanations, not for scoring: about this
    share of all documents, and of a larger share a part."""
    digest = hashlib.sha256(f"{seed}:select:{doc_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48 < 2 * share


class Status(NamedTuple):
    """What becomes of the latents of a dictionary: every one is counted once."""

    dead: int
    """They never fire on the harvested text."""
    too_dense: int
    """They fire on more tokens than `max_density`, or too often for all of their events to be kept."""
    too_few: int
    """They fire in too few contexts or documents on either side."""
    eligible: int
    """All others: what is drawn from."""

    @property
    def width(self) -> int:
        """All latents."""
        return sum(self)


class Sampler:
    """Draws evidence and trials from a published index."""

    def __init__(self, index: FeatureIndex, cfg: SampleConfig) -> None:
        """Split the index's documents."""
        self.index, self.cfg, self._tokens = index, cfg, index.tokens
        docs = range(index.tokens.n_docs)
        explains = np.array([explain_side(doc_id, cfg.seed) for doc_id in docs], bool)
        selects = np.array([select_side(doc_id, cfg.seed, cfg.select_share) for doc_id in docs], bool) & ~explains
        has = {"explain": explains, "select": selects, "score": ~explains & ~selects}
        self._sides = {part: Side(index.tokens, cfg.half_window, has[part]) for part in PARTS}
        self.explain_docs: list[int] = np.flatnonzero(explains).tolist()

    def choose(self, n: int) -> list[int]:
        """`n` latents drawn at random from those with enough contexts on both sides, ascending.

        Raises:
            UsageError: no latent has enough.
        """
        enough = self._eligible()
        if not enough:
            raise UsageError(
                f"no latent fires in {self.cfg.min_contexts} contexts of {self.cfg.min_docs} documents on both sides: "
                "harvest more text"
            )
        random = np.random.default_rng([self.cfg.seed, 1])
        return sorted(int(latent) for latent in random.choice(enough, min(n, len(enough)), replace=False))

    def status(self) -> Status:
        """How many latents can be explained and scored, and why the others cannot."""
        counts = self.index.arrow(DENSITIES, [self.cfg.max_density]).to_pylist()[0]
        n_eligible = len(self._eligible())
        return Status(counts["dead"], counts["too_dense"], counts["others"] - n_eligible, n_eligible)

    def select(self, sql: str) -> list[int]:
        """The latents of one SELECT over the index, whose first column is `latent`, each once, in its order.

        Raises:
            UsageError: it cannot be answered, has another first column, no row, or latents that are none or are dead.
        """
        found = self.index.arrow(sql)
        if not found.num_columns or found.column_names[0] != "latent":
            said = found.column_names[0] if found.num_columns else "nothing"
            raise UsageError(f"the selection's first column is '{said}': write SELECT latent, … FROM features WHERE …")
        latents = list(dict.fromkeys(found.column(0).to_pylist()))
        if not latents:
            raise UsageError("the selection has no latent: ask for more, for instance SELECT latent FROM features")
        unknown = [value for value in latents if not isinstance(value, int) or not 0 <= value < self.index.n_latents]
        if unknown:
            raise UsageError(f"there is no latent {_named(unknown)}: choose 0 to {self.index.n_latents - 1}")
        dead = self.index.arrow(DEAD, [latents]).column(0).to_pylist()
        if dead:
            raise UsageError(
                f"{len(dead)} of {len(latents)} selected latents never fire on the harvested text ({_named(dead)}): "
                "leave them out with WHERE NOT dead, or harvest more text"
            )
        return latents

    def density(self, latent: int) -> float:
        """Share of the tokens that count on which it fires.

        Raises:
            UsageError: there is no such latent.
        """
        return self._fact(latent, "density")

    def evidence(self, latent: int, wants: Set[str] = EVIDENCE) -> Evidence:
        """What an explainer may see of a latent, from the explain side; only the parts in `wants` are looked for.

        Where a latent fires too often for all of its events to be kept, nothing silent is shown.

        Raises:
            UsageError: there is no such latent.
            ValueError: `wants` names no part of the evidence.
        """
        _check_wants(wants, EVIDENCE)
        events, side = self._events(latent), self._sides["explain"]
        peaks = side.peaks(events)
        spread_out = peaks.spread(self.cfg.n_explain, self._random(latent, "explain", "active"))
        parts = {
            "windows": spread_out if "windows" in wants else NONE,
            "top": Peaks(*(column[: self.cfg.n_explain] for column in peaks)) if "top" in wants else NONE,
            "silent": self._silent_evidence(side, events, spread_out) if "silent" in wants else NONE,
        }
        found = self._windows(events, side, list(parts.values()))
        logits = self._logits(latent) if "logits" in wants else {}
        return Evidence(
            latent,
            promoted=logits.get("top", ()),
            suppressed=logits.get("bottom", ()),
            neighbours=self._shown(self._near(events, side), side, "explain") if "neighbours" in wants else (),
            **dict(zip(parts, found, strict=True)),
        )

    def trial(self, latent: int, wants: Set[str] = TRIAL, part: str = "score") -> Trial:
        """Contexts to judge an explanation on, of documents that no explainer is shown; only what is in `wants`.

        Args:
            latent: its number.
            wants: parts of a trial.
            part: `score`, or `select`: of documents that are not scored on, to choose among several explanations.

        Raises:
            UsageError: there is no such latent, not all of its events are kept, or there are no such documents.
            ValueError: `wants` names no part of a trial, or there is no such `part`.
        """
        _check_wants(wants, TRIAL)
        side = self._side_of_trials(part)
        events = self._events(latent)
        seed = int(np.random.SeedSequence([self.cfg.seed, latent, PARTS.index(part)]).generate_state(1)[0])
        if not events.complete:
            raise UsageError(
                f"latent {latent} fires so often that not all of its events are kept, and where it is silent is not "
                "told: choose another, or index with a larger --max-events"
            )
        near = self._near(events, side) if "neighbours" in wants or self.cfg.neighbour_share else []
        items = self._items(events, side, near, part) if "items" in wants else []
        order = np.random.default_rng(seed).permutation(len(items))
        return Trial(
            latent,
            tuple(items[i] for i in order),
            base_rate=side.share_active(events) if "items" in wants else None,
            neighbours=self._shown(near, side, part) if "neighbours" in wants else (),
            seed=seed,
        )

    def _side_of_trials(self, part: str) -> Side:
        if part not in ("score", "select"):
            raise ValueError(f"part='{part}': choose score or select")
        if part == "select" and not self.cfg.select_share:
            raise UsageError(
                "no documents are kept to choose among several explanations of a latent: set select_share, for "
                "instance to 0.2"
            )
        return self._sides[part]

    def _items(self, events: Events, side: Side, near: list["Near"], part: str) -> list[Item]:
        """Active contexts, strongest first, and as many silent ones, kind by kind."""
        random = self._random(events.latent, part, "active")
        active = side.peaks(events).spread(self.cfg.n_score, random)
        n = len(active.places)
        shares = {"neighbour": self.cfg.neighbour_share, "same_token": self.cfg.same_token_share}
        wanted = {kind: round(share * n) for kind, share in shares.items()}
        wanted["same_token"] = min(wanted["same_token"], n - wanted["neighbour"])
        wanted["random"] = n - sum(wanted.values())
        lent = [each.peaks for each in near] if wanted["neighbour"] else []
        seed = self._seed(events.latent, part, "silent")
        places = silent_places(side, events, wanted, active.places, lent, seed)
        silent = np.concatenate(list(places.values()))
        fires, rests = self._windows(events, side, [active, _still(silent)])
        kinds = np.repeat(list(places), [len(each) for each in places.values()]).tolist()
        marked = marks(rests, fires, self._random(events.latent, part, "marks"))
        return [
            *(Item(window, ACTIVE, fires_at(window)) for window in fires),
            *(Item(window, kind, at) for window, kind, at in zip(rests, kinds, marked, strict=True)),
        ]

    def _silent_evidence(self, side: Side, events: Events, active: Peaks) -> Peaks:
        if not events.complete:
            return NONE
        random, n = self._random(events.latent, "explain", "silent"), self.cfg.n_silent
        same = spread(self._tokens, side.on_tokens(active.places, n, events, random), NONE.places, n)
        others = spread(self._tokens, side.at_random(n, events, random), same, n - len(same))
        return _still(np.concatenate([same, others]))

    def _near(self, events: Events, side: Side) -> list["Near"]:
        """The nearest latents by decoder cosine that fire where this one is silent, nearest first."""
        if not events.complete or not self.cfg.n_neighbours:
            return []
        rows = self.index.arrow(NEIGHBOURS, [events.latent, self.cfg.n_neighbours]).to_pylist()
        fired = self.index.events_of([row["other"] for row in rows]) if rows else []
        found = []
        for row, theirs in zip(rows, fired, strict=True):
            other = self._placed(row["other"], theirs, complete=False)
            peaks = side.peaks(other)
            alone = side.silent(peaks.places, events) if len(peaks.places) else np.zeros(0, bool)
            if alone.any():
                found.append(Near(other, row["cosine"], Peaks(peaks.places[alone], peaks.values[alone])))
        return found

    def _shown(self, near: list["Near"], side: Side, part: str) -> tuple[Neighbour, ...]:
        found = []
        for events, cosine, peaks in near:
            drawn = peaks.spread(self.cfg.per_neighbour, self._random(events.latent, part, "neighbour"))
            found.append(Neighbour(events.latent, cosine, self._windows(events, side, [drawn])[0]))
        return tuple(found)

    def _windows(self, events: Events, side: Side, groups: list[Peaks]) -> list[tuple[Window, ...]]:
        """The windows around each group of places, looked up together."""
        places, values = (np.concatenate(columns) for columns in zip(*groups, strict=True))
        spans = side.spans(places)
        found = tuple(windows_at(self.index, events.latent, places, spans, values, events.fired))
        stops = np.cumsum([len(group.places) for group in groups]).tolist()
        return [found[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]

    def _events(self, latent: int) -> Events:
        complete = self._fact(latent, "event_share") == 1
        return self._placed(latent, self.index.events(latent), complete=complete)

    def _placed(self, latent: int, fired: Fired, *, complete: bool) -> Events:
        return Events(latent, fired, self._tokens.places(fired.seq, fired.pos), complete)

    def _fact(self, latent: int, name: str) -> float:
        rows = self.index.arrow(f"SELECT {name} FROM latents WHERE latent = ?", [latent]).to_pylist()
        if not rows:
            raise UsageError(f"there is no latent {latent}: choose 0 to {self.index.n_latents - 1}")
        return rows[0][name]

    def _logits(self, latent: int) -> dict[str, tuple[Logit, ...]]:
        rows = self.index.arrow(LOGITS, [latent]).to_pylist()
        return {
            side: tuple(Logit(row["token_id"], row["token"], row["value"]) for row in rows if row["side"] == side)
            for side in ("top", "bottom")
        }

    def _eligible(self) -> list[int]:
        """Latents with enough contexts on both sides, ascending."""
        score_docs = np.flatnonzero(self._sides["score"].has).tolist()
        found = self.index.arrow(ELIGIBLE, [self.cfg.max_density, self.explain_docs, score_docs]).to_pylist()
        return [
            row["latent"]
            for row in found
            if min(row["explain_contexts"], row["score_contexts"]) >= self.cfg.min_contexts
            and min(row["explain_docs"], row["score_docs"]) >= self.cfg.min_docs
        ]

    def _seed(self, latent: int, part: str, what: str) -> list[int]:
        return [self.cfg.seed, latent, PARTS.index(part), DRAWS.index(what)]

    def _random(self, latent: int, part: str, what: str) -> np.random.Generator:
        return np.random.default_rng(self._seed(latent, part, what))


class Near(NamedTuple):
    """A neighbour, and where it fires and the latent in question is silent."""

    events: Events
    cosine: float
    peaks: Peaks


DRAWS = ("active", "silent", "marks", "neighbour")
"""What is drawn for a latent, each with a seed of its own."""
NONE = Peaks(np.empty(0, np.int64), np.empty(0, np.float32))


def _still(places: np.ndarray) -> Peaks:
    return Peaks(places, np.zeros(len(places), np.float32))


def _named(latents: list[Any]) -> str:
    shown = ", ".join(str(latent) for latent in latents[:SHOWN])
    return shown if len(latents) <= SHOWN else f"{shown} and {len(latents) - SHOWN} more"


def _check_wants(wants: Set[str], known: Set[str]) -> None:
    if not wants <= known:
        raise ValueError(f"wants={sorted(wants)}: choose of {', '.join(sorted(known))}")


NEIGHBOURS = "SELECT other, cosine FROM neighbours WHERE latent = ? AND side = 'decoder' ORDER BY rank LIMIT ?"
LOGITS = "SELECT side, token_id, token, value FROM logits WHERE latent = ? ORDER BY side, rank"
DEAD = "SELECT latent FROM latents WHERE dead AND latent IN (SELECT unnest(?::BIGINT[])) ORDER BY latent"
DENSITIES = """
SELECT count(*) FILTER (dead) AS dead,
       count(*) FILTER (NOT dead AND (density > $1 OR event_share < 1)) AS too_dense,
       count(*) FILTER (NOT dead AND density <= $1 AND event_share = 1) AS others
FROM latents
"""
# A context is the strongest event in one document's tokens within one sequence, and on the side of that document.
ELIGIBLE = """
WITH per_piece AS (
    SELECT DISTINCT latent, seq, doc_id FROM events
    WHERE latent IN (SELECT latent FROM latents WHERE density <= ? AND event_share = 1)
), sided AS (
    SELECT latent, doc_id, doc_id IN (SELECT unnest(?::BIGINT[])) AS explain,
           doc_id IN (SELECT unnest(?::BIGINT[])) AS score
    FROM per_piece
)
SELECT latent,
       count(*) FILTER (explain) AS explain_contexts,
       count(*) FILTER (score) AS score_contexts,
       count(DISTINCT doc_id) FILTER (explain) AS explain_docs,
       count(DISTINCT doc_id) FILTER (score) AS score_docs
FROM sided GROUP BY latent ORDER BY latent
"""
