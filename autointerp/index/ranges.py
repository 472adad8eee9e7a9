"""The tables whose rows are found from a latent's own events, made a range of latents at a time.

Nothing here knows a dictionary or a model: what fires where is enough, wherever it was told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activations.progress import Progress, no_progress
from autointerp.index.coactivation import coactivations
from autointerp.index.config import IndexConfig
from autointerp.index.contexts import Misses, Reading, Twins, choose, columns
from autointerp.index.encode import NearMisses
from autointerp.index.gather import (
    CodeFiles,
    LatentEvents,
    LatentRange,
    Totals,
    events_together,
    gather,
    ranges,
    totals,
)
from autointerp.index.ngrams import Pairs, ngrams
from autointerp.index.spill import Spill, Thinning
from autointerp.index.statistics import sources_of, statistics
from store import layout
from store.errors import UsageError
from store.files import whole_file
from store.index import PARTS, part_path, write_part
from store.token_map import TokenMap

TABLES = ("events", "contexts", "ngrams", "coactivations", "latents")
"""Tables with a part for every range of latents."""
ABOUT = ("source", "title", "split")
"""What a context says of its document."""
PLAN = "ranges.npy"
"""`[n_ranges + 1]` the first latent of each range, and the number of latents."""


@dataclass(frozen=True)
class Ranges:
    """What is made, in an index's folder, of the windows that were encoded there."""

    folder: Path
    cfg: IndexConfig
    tokens: TokenMap
    words: Callable[[], list[str]]
    """Gives the text of every token, by id."""
    progress: Progress = no_progress

    def done(self) -> bool:
        """Whether every window's codes and every part of every table is there."""
        if not all(self.spill.codes_path(window).exists() for window in range(self.n_windows)):
            return False
        plan = self.folder / PLAN
        if not plan.exists():
            return False
        numbers = range(len(np.load(plan)) - 1)
        return all(part_path(self.folder, table, number).exists() for table in TABLES for number in numbers)

    def write(self) -> None:
        """Make the parts that are not there.

        Raises:
            UsageError: no latent fires.
        """
        known = totals(self.spill, self.n_windows)
        if not known.n_fired.any():
            raise UsageError("no latent fires on any token of this harvest: train the SAE on activations like these")
        plan = self._plan(known)
        thinning = Thinning(self.cfg.max_events, self.cfg.n_top, self.cfg.seed, len(self.tokens))
        shared = _Shared.of(self, known)
        for number, which in enumerate(self.progress(plan, len(plan), "statistics, contexts and relations")):
            wanted = [table for table in TABLES if not part_path(self.folder, table, number).exists()]
            if wanted:
                events = gather(self.spill, self.n_windows, which, known, self.codes, thinning)
                for table in wanted:
                    write_part(self.folder, table, MAKERS[table](shared, events, number), number)
                    self.tokens.release()

    def _plan(self, known: Totals) -> list[LatentRange]:
        """The ranges, decided once: a part's number says which latents it holds, whenever it is made."""
        if not (self.folder / PLAN).exists():
            held = known.n_fired + np.where(known.shift > 0, known.n_kept, 0)
            plan = ranges(held, events_together(len(self.tokens)))
            with whole_file(self.folder / PLAN) as scratch, scratch.open("wb") as handle:
                np.save(handle, np.array([*(which.start for which in plan), plan[-1].stop]))
        return [LatentRange(int(a), int(b)) for a, b in pairwise(np.load(self.folder / PLAN))]

    @cached_property
    def spill(self) -> Spill:
        """Where the windows lie."""
        return Spill(self.folder)

    @cached_property
    def codes(self) -> CodeFiles:
        """What fires on each token."""
        return CodeFiles(self.spill, self.tokens)

    @property
    def n_windows(self) -> int:
        """Of the harvest."""
        return len(self.tokens.windows) - 1

    def _code_bytes(self) -> int:
        return sum(self.spill.codes_path(window).stat().st_size for window in range(self.n_windows))

    def summary(self) -> dict[str, float | int]:
        """What was made, in numbers."""
        parts = {table: sorted((self.folder / PARTS).glob(f"{table}-*.parquet")) for table in TABLES}
        names = ["n_fired", "n_events", "dense", "event_share"]
        table = pa.concat_tables([pq.read_table(path, columns=names) for path in parts["latents"]])
        n_fired, n_events, dense, share = (table.column(name).to_numpy() for name in names)
        n_tokens, n_kept = int(self.codes.counted().sum()), int(n_events.sum())
        return {
            "n_latents": len(n_fired),
            "n_alive": int((n_fired > 0).sum()),
            "n_dense": int(dense.sum()),
            "n_sampled": int((share < 1).sum()),
            "n_tokens": n_tokens,
            "n_fired": int(n_fired.sum()),
            "n_events": n_kept,
            "bytes_per_event": (sum(path.stat().st_size for path in parts["events"]) + self._code_bytes())
            / max(n_kept, 1),
            "l0": float(n_fired.sum() / max(n_tokens, 1)),
            "n_contexts": sum(pq.read_metadata(path).num_rows for path in parts["contexts"]),
        }


def titles(harvest: Path) -> dict[str, Any]:
    """The columns of the index's `titles` table, from a harvest's folder."""
    names = ["doc_id", "source", "title", "split", "n_tokens"]
    documents = pa.concat_tables(pq.read_table(path, columns=names) for path in layout.document_parts(harvest))
    return {name: documents.column(name).combine_chunks() for name in names}


@dataclass(frozen=True)
class _Shared:
    """What every range of latents is worked on with."""

    work: Ranges
    known: Totals
    n_tokens: int
    titles: pa.Table
    """Source, title and split of each document."""
    sources: np.ndarray
    words: list[str]
    reading: Reading
    twins: Twins
    pairs: Pairs
    misses: NearMisses | None

    @classmethod
    def of(cls, work: Ranges, known: Totals) -> "_Shared":
        counted, words = work.codes.counted(), work.words()
        titled = pq.read_table(part_path(work.folder, "titles"), columns=list(ABOUT))
        twins = Twins.of(work.tokens, counted)
        return cls(
            work=work,
            known=known,
            n_tokens=int(counted.sum()),
            titles=titled,
            sources=sources_of(titled.to_pydict()),
            words=words,
            reading=Reading.of(work.tokens, words),
            twins=twins,
            pairs=Pairs.of(work.tokens, twins),
            misses=work.spill.misses(work.n_windows - 1),
        )


def _events(shared: _Shared, events: LatentEvents, number: int) -> Mapping[str, Any]:
    tokens = shared.work.tokens
    seq, pos = events.positions(tokens)
    docs = events.documents(tokens)
    return {"latent": events.latent + events.first, "seq": seq, "pos": pos, "doc_id": docs, "value": events.value}


def _contexts(shared: _Shared, events: LatentEvents, number: int) -> Mapping[str, Any]:
    work, own = shared.work, slice(events.first, events.first + events.n_latents)
    misses = Misses(np.empty((events.n_latents, 0), np.float32), np.empty((events.n_latents, 0), np.int64))
    if shared.misses is not None:
        misses = Misses(shared.misses.value[own].numpy(), shared.misses.place[own].numpy())
    chosen = choose(events, work.tokens, shared.reading, work.cfg, misses, shared.twins)
    found = columns(chosen, events, work.tokens, work.cfg)
    about = shared.titles.take(pa.array(found["doc_id"]))
    return found | {name: about.column(name).combine_chunks() for name in ABOUT}


def _ngrams(shared: _Shared, events: LatentEvents, number: int) -> Mapping[str, Any]:
    found = ngrams(events, shared.work.tokens, shared.twins, shared.pairs, shared.work.cfg.n_ngrams)
    texts = ["".join(shared.words[i] for i in ids) for ids in found["token_ids"].to_pylist()]
    return {**found, "text": texts}


def _coactivations(shared: _Shared, events: LatentEvents, number: int) -> Mapping[str, Any]:
    work = shared.work
    return coactivations(events, work.codes, shared.known.n_fired, shared.n_tokens, work.cfg.n_coactive)


def _latents(shared: _Shared, events: LatentEvents, number: int) -> Mapping[str, Any]:
    work, cfg = shared.work, shared.work.cfg
    table = statistics(
        events, shared.known, work.tokens, shared.sources, shared.n_tokens, n_bins=cfg.n_bins, seed=cfg.seed
    )
    return {**table, "part": np.full(events.n_latents, number), "first_row": events.bounds[:-1]}


MAKERS: dict[str, Callable[[_Shared, LatentEvents, int], Mapping[str, Any]]] = {
    "events": _events,
    "contexts": _contexts,
    "ngrams": _ngrams,
    "coactivations": _coactivations,
    "latents": _latents,
}
