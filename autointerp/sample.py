"""Contexts to explain from and contexts to score on, disjoint by document for every latent at once.

Of a latent a few numbers are kept: what a draw takes is the events of it and of its nearest neighbours.
"""

import hashlib
from collections.abc import Sequence, Set
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from autointerp.latent import ACTIVE, Evidence, Item, Neighbour, Trial
from autointerp.sample_config import SampleConfig
from autointerp.sample_side import Events, Peaks, Side
from autointerp.sample_silent import fires_at, marks, silent_places, spread
from autointerp.sample_where import Logits, Where
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.latents import Shown, Window, windows_of

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


class NotAllKept(UsageError):
    """A latent of which not all events are kept: where it is silent is not known."""


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
        self._logits = Logits(index)
        docs = range(index.tokens.n_docs)
        explains = np.array([explain_side(doc_id, cfg.seed) for doc_id in docs], bool)
        share = cfg.select_share
        selects = np.array([share > 0 and select_side(doc_id, cfg.seed, share) for doc_id in docs], bool) & ~explains
        has = {"explain": explains, "select": selects, "score": ~explains & ~selects}
        self._sides = {part: Side(index.tokens, cfg.half_window, has[part]) for part in PARTS}
        self.explain_docs: list[int] = np.flatnonzero(explains).tolist()

    def choose(self, n: int) -> list[int]:
        """`n` latents drawn at random from those with enough contexts on both sides, ascending.

        Raises:
            UsageError: no latent has enough.
        """
        enough = self.eligible()
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
        n_eligible = len(self.eligible())
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
            raise self._unknown(unknown)
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
        rows = self.index.arrow("SELECT density FROM latents WHERE latent = ?", [latent]).to_pylist()
        if not rows:
            raise self._unknown([latent])
        return rows[0]["density"]

    def evidence(self, latent: int, wants: Set[str] = EVIDENCE) -> Evidence:
        """What an explainer may see of a latent, from the explain side; only the parts in `wants` are looked for.

        Where a latent fires too often for all of its events to be kept, nothing silent is shown.

        Raises:
            UsageError: there is no such latent.
            ValueError: `wants` names no part of the evidence.
        """
        _check_wants(wants, EVIDENCE)
        side = self._sides["explain"]
        events, near = self._look(latent, side, near="neighbours" in wants)
        peaks = side.peaks(events)
        spread_out = peaks.spread(self.cfg.n_explain, self._random(latent, "explain", "active"))
        groups = {
            "windows": spread_out if "windows" in wants else NONE,
            "top": Peaks(*(column[: self.cfg.n_explain] for column in peaks)) if "top" in wants else NONE,
            "silent": self._silent_evidence(side, events, spread_out) if "silent" in wants else NONE,
        }
        found = self._windows(side, [*((events, group) for group in groups.values()), *self._drawn(near, "explain")])
        promoted, suppressed = self._logits.of(latent) if "logits" in wants else ((), ())
        return Evidence(
            latent,
            promoted=promoted,
            suppressed=suppressed,
            neighbours=_neighbours(near, found[len(groups) :]),
            **dict(zip(groups, found, strict=False)),
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
        asks, shows = "items" in wants, "neighbours" in wants
        events, near = self._look(latent, side, near=shows or (asks and self.cfg.neighbour_share > 0))
        if not events.complete:
            raise NotAllKept(
                f"latent {latent} fires so often that not all of its events are kept, and where it is silent is not "
                "told: choose another, or index with a larger --max-events"
            )
        active, silent = self._places(events, side, near, part) if asks else (NONE, {})
        drawn = self._drawn(near, part) if shows else []
        groups = [active, *(_still(places) for places in silent.values())]
        found = self._windows(side, [*((events, group) for group in groups), *drawn])
        items = self._items(latent, part, found[0], dict(zip(silent, found[1:], strict=False)))
        seed = int(np.random.SeedSequence([self.cfg.seed, latent, PARTS.index(part)]).generate_state(1)[0])
        return Trial(
            latent,
            tuple(items[i] for i in np.random.default_rng(seed).permutation(len(items))),
            base_rate=side.share_active(events) if asks else None,
            neighbours=_neighbours(near, found[len(groups) :]) if shows else (),
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

    def _places(self, events: Events, side: Side, near: list["Near"], part: str) -> tuple[Peaks, dict[str, np.ndarray]]:
        """Where it is active, strongest first, and as many places where it is silent, by kind."""
        active = side.peaks(events).spread(self.cfg.n_score, self._random(events.latent, part, "active"))
        n = len(active.places)
        n_near = round(self.cfg.neighbour_share * n)
        n_same = min(round(self.cfg.same_token_share * n), n - n_near)
        wanted = {"neighbour": n_near, "same_token": n_same, "random": n - n_near - n_same}
        lent = [each.peaks for each in near] if n_near else []
        seed = self._seed(events.latent, part, "silent")
        return active, silent_places(side, events, wanted, active.places, lent, seed)

    def _items(
        self, latent: int, part: str, active: tuple[Window, ...], silent: dict[str, tuple[Window, ...]]
    ) -> list[Item]:
        kinds = [(kind, window) for kind, windows in silent.items() for window in windows]
        marked = marks([window for _, window in kinds], active, self._random(latent, part, "marks"))
        return [
            *(Item(window, ACTIVE, fires_at(window)) for window in active),
            *(Item(window, kind, at) for (kind, window), at in zip(kinds, marked, strict=True)),
        ]

    def _silent_evidence(self, side: Side, events: Events, active: Peaks) -> Peaks:
        if not events.complete:
            return NONE
        random, n = self._random(events.latent, "explain", "silent"), self.cfg.n_silent
        same = spread(self._tokens, side.on_tokens(active.places, n, events, random), NONE.places, n)
        others = spread(self._tokens, side.at_random(n, events, random), same, n - len(same))
        return _still(np.concatenate([same, others]))

    def _look(self, latent: int, side: Side, *, near: bool) -> tuple[Events, list["Near"]]:
        """Where a latent fires; and, if asked, the nearest latents by decoder cosine that fire
        where this one is silent, nearest first."""
        this = self._where.of(latent)
        if this is None:
            raise self._unknown([latent])
        pairs = self._where.nearest(latent) if near and this.complete else []
        found = [this, *(other for other, _ in pairs)]
        own, *others = (
            Events(each.latent, fired, self._tokens.places(fired.seq, fired.pos), each.complete)
            for each, fired in zip(found, self.index.events_at([each.rows for each in found]), strict=True)
        )
        lent = []
        for (_, cosine), other in zip(pairs, others, strict=True):
            peaks = side.peaks(other)
            alone = side.silent(peaks.places, own)
            if alone.any():
                lent.append(Near(other, cosine, Peaks(peaks.places[alone], peaks.values[alone])))
        return own, lent

    def _drawn(self, near: list["Near"], part: str) -> list[tuple[Events, Peaks]]:
        """The contexts shown of each neighbour."""
        n = self.cfg.per_neighbour
        return [(each.events, each.peaks.spread(n, self._random(each.events.latent, part, "near"))) for each in near]

    def _windows(self, side: Side, groups: list[tuple[Events, Peaks]]) -> list[tuple[Window, ...]]:
        """The windows around each group of places, looked up together."""
        shown = [Shown(p.places, side.spans(p.places), p.values, events.fired) for events, p in groups]
        return windows_of(self.index, shown)

    def _unknown(self, latents: list[Any]) -> UsageError:
        return UsageError(f"there is no latent {_named(latents)}: choose 0 to {self.index.n_latents - 1}")

    def eligible(self) -> list[int]:
        """Latents with enough contexts on both sides, ascending."""
        return self._eligible.tolist()

    @cached_property
    def _where(self) -> Where:
        return Where(self.index, self.cfg.n_neighbours)

    @cached_property
    def _eligible(self) -> np.ndarray:
        """`[n]` of them; a range of latents at a time, whose events are together looked through."""
        cfg, score_docs = self.cfg, np.flatnonzero(self._sides["score"].has).tolist()
        settings = [cfg.max_density, self.explain_docs, score_docs, cfg.min_contexts, cfg.min_docs]
        found = [self.index.arrow(ELIGIBLE, [low, high, *settings]).column(0) for low, high in self._ranges()]
        return np.concatenate([np.empty(0, np.int32), *(column.to_numpy() for column in found)])

    def _ranges(self) -> list[tuple[int, int]]:
        """First and last latent of ranges of about `AT_ONCE` events."""
        told = self.index.arrow("SELECT latent, n_events FROM latents ORDER BY latent")
        latents, counts = (column.to_numpy() for column in told.columns)
        _, first = np.unique((np.cumsum(counts) - counts) // AT_ONCE, return_index=True)
        last = np.append(first[1:], len(latents)) - 1
        return list(zip(latents[first].tolist(), latents[last].tolist(), strict=True))

    def _seed(self, latent: int, part: str, what: str) -> list[int]:
        return [self.cfg.seed, latent, PARTS.index(part), DRAWS.index(what)]

    def _random(self, latent: int, part: str, what: str) -> np.random.Generator:
        return np.random.default_rng(self._seed(latent, part, what))


class Near(NamedTuple):
    """A neighbour, and where it fires and the latent in question is silent."""

    events: Events
    cosine: float
    peaks: Peaks


AT_ONCE = 1 << 20
"""Events looked through together to tell which latents have enough contexts."""
DRAWS = ("active", "silent", "marks", "near")
"""What is drawn for a latent, each with a seed of its own."""
NONE = Peaks(np.empty(0, np.int64), np.empty(0, np.float32))


def _still(places: np.ndarray) -> Peaks:
    return Peaks(places, np.zeros(len(places), np.float32))


def _neighbours(near: Sequence[Near], windows: Sequence[tuple[Window, ...]]) -> tuple[Neighbour, ...]:
    pairs = zip(near, windows, strict=False)
    return tuple(Neighbour(each.events.latent, each.cosine, shown) for each, shown in pairs)


def _named(latents: list[Any]) -> str:
    shown = ", ".join(str(latent) for latent in latents[:SHOWN])
    return shown if len(latents) <= SHOWN else f"{shown} and {len(latents) - SHOWN} more"


def _check_wants(wants: Set[str], known: Set[str]) -> None:
    if not wants <= known:
        raise ValueError(f"wants={sorted(wants)}: choose of {', '.join(sorted(known))}")


DEAD = "SELECT latent FROM latents WHERE dead AND latent IN (SELECT unnest(?::BIGINT[])) ORDER BY latent"
DENSITIES = """
SELECT count(*) FILTER (dead) AS dead,
       count(*) FILTER (NOT dead AND (density > $1 OR event_share < 1)) AS too_dense,
       count(*) FILTER (NOT dead AND density <= $1 AND event_share = 1) AS others
FROM latents
"""
# A context is the strongest event in one document's tokens within one sequence, and on the side of that document.
COUNTED = """
WITH per_piece AS (
    SELECT DISTINCT latent, seq, doc_id FROM events
    WHERE latent BETWEEN $1 AND $2 AND latent IN (SELECT latent FROM latents WHERE density <= $3 AND event_share = 1)
), sided AS (
    SELECT latent, doc_id, doc_id IN (SELECT unnest($4::BIGINT[])) AS explain,
           doc_id IN (SELECT unnest($5::BIGINT[])) AS score
    FROM per_piece
)
SELECT latent,
       count(*) FILTER (explain) AS explain_contexts,
       count(*) FILTER (score) AS score_contexts,
       count(DISTINCT doc_id) FILTER (explain) AS explain_docs,
       count(DISTINCT doc_id) FILTER (score) AS score_docs
FROM sided GROUP BY latent ORDER BY latent
"""
ELIGIBLE = f"""
SELECT latent FROM ({COUNTED})
WHERE least(explain_contexts, score_contexts) >= $6 AND least(explain_docs, score_docs) >= $7
"""
