"""Match two dictionaries by their indexes: a run of kind `matching`."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from activations.progress import Progress, no_progress
from autointerp.matching import tables
from autointerp.matching.config import MatchConfig
from autointerp.matching.directions import NULL, Directions, load_directions, why_no_cosine
from autointerp.matching.families import Families, families
from autointerp.matching.products import Laid, Meeting
from autointerp.matching.side import ByToken, Side
from autointerp.matching.survey import Close, PairFigures, Survey, survey, survey_directions
from autointerp.matching.tables import Measured
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.files import remove_partials
from store.hashing import plain
from store.matching import write_table
from store.run import Run, start_run

VERSION = 2
"""Of what a matching holds: a change makes another run of the same request."""
SCRATCH = ".scratch"
ROTATED = "a's sequences rotated against b's"
SAME = {
    "sequences": ("seqs", "offsets"),
    "tokens": ("token_ids",),
    "windows": ("windows",),
    "documents": ("piece_first", "piece_doc"),
}
"""What must agree of two indexes' tokens, and where it is told."""


def match_indexes(cfg: MatchConfig, a: Run, b: Run, root: Path, progress: Progress = no_progress) -> Run:
    """Make `root/matching/<hash>`, or return the one that is there; one that was killed begins anew.

    Raises:
        UsageError: both are the same index, they are of other tokens or classes, or no latent is alive on a side.
    """
    if a.id == b.id:
        raise UsageError(
            f"both are index {a.id}, which matches itself: name another; which of its own latents are alike is in its "
            "tables neighbours and coactivations"
        )
    indexes = FeatureIndex(a.folder), FeatureIndex(b.folder)
    check_comparable(*indexes)
    with start_run(root, "matching", cfg, {"a": a.id, "b": b.id}, same={**plain(cfg), "version": VERSION}) as run:
        if not run.finished:
            scratch = run.folder / SCRATCH
            shutil.rmtree(scratch, ignore_errors=True)
            remove_partials(run.folder)
            try:
                results = _Matching(run.folder, cfg, Side(indexes[0]), Side(indexes[1]), scratch, progress).make()
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            run.finish(results)
        return run


def check_comparable(a: FeatureIndex, b: FeatureIndex) -> None:
    """Nothing, where both indexes are of the same tokens in the same windows, and count the same classes.

    Raises:
        UsageError: what differs.
    """
    one, two = a.run, b.run
    differ = []
    if one.inputs.get("activations") != two.inputs.get("activations") or "activations" not in one.inputs:
        differ = [
            f"{what} ({len(a.tokens):,} and {len(b.tokens):,} tokens)" if what == "tokens" else what
            for what, names in SAME.items()
            if not all(np.array_equal(getattr(a.tokens, name), getattr(b.tokens, name)) for name in names)
        ]
    classes = [list(run.config.get("classes", ())) for run in (one, two)]
    if all(classes) and sorted(classes[0]) != sorted(classes[1]):
        differ.append(f"token classes that count ({'+'.join(classes[0])} and {'+'.join(classes[1])})")
    if differ:
        raise UsageError(
            f"index {two.id} differs from {one.id} in {', '.join(differ)}: only those of the same tokens are matched; "
            "make one again on the harvest, and with the classes, of the other"
        )


@dataclass(frozen=True)
class _Matching:
    """Two indexes, and where what is found of them goes."""

    folder: Path
    cfg: MatchConfig
    a: Side
    b: Side
    scratch: Path
    progress: Progress

    def make(self) -> dict[str, Any]:
        """Write every table, and sum up."""
        measured = {side: self._cosines(directions) for side, directions in self.directions.items()}
        close = None
        if "decoder" in measured:
            close = _close(self.directions["decoder"], measured["decoder"].threshold)
        null = self._survey(Meeting(self.rotated, self.on_b), close, "pairs of the null")
        by_cosine = close is not None
        if not by_cosine:
            best = null.rankings["correlation"].best
            close = _close(None, float(np.quantile(best, self.cfg.quantile)) if len(best) else None)
        found = self._survey(self.meeting, close, "pairs of latents")
        ranks = found.rankings["correlation"], null.rankings["correlation"]
        measured["correlation"] = Measured.of(*ranks, ROTATED, self.cfg.quantile)
        own = self._families(self.laid, found)
        self._write(found, measured, own)
        by_chance = self._families(self.rotated, null) if by_cosine else None
        return self._summary(measured, own, by_chance)

    @cached_property
    def laid(self) -> Laid:
        return Laid(self.a, self.b)

    @cached_property
    def rotated(self) -> Laid:
        """By a quarter of all sequences at least: a document has then met another one."""
        n = len(self.a.tokens.seqs)
        if n < 2:
            raise UsageError("the harvest has one sequence, so there is no null: match on one with more text")
        by = int(np.random.default_rng(self.cfg.seed).integers(max(1, n // 4), n - n // 4))
        return Laid(self.a, self.b, int(self.a.tokens.offsets[by]))

    @cached_property
    def on_b(self) -> ByToken:
        return self.b.by_token(self.scratch)

    @cached_property
    def meeting(self) -> Meeting:
        return Meeting(self.laid, self.on_b)

    @cached_property
    def n_fired(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the latents of a and b, on the tokens that count on both sides.

        Raises:
            UsageError: none fires on a side.
        """
        counts = self.a.n_fired(self.laid.counted), self.b.n_fired(self.laid.counted)
        for side, n in zip((self.a, self.b), counts, strict=True):
            if not n.any():
                raise UsageError(
                    f"no latent of index {side.index.run.id} fires on a token that counts on both sides: there is "
                    "nothing to match"
                )
        return counts

    @cached_property
    def why_no_cosine(self) -> str:
        return why_no_cosine(self.a.index.run, self.b.index.run)

    @cached_property
    def directions(self) -> dict[str, Directions]:
        n_a, n_b = (torch.from_numpy(n) for n in self.n_fired)
        return {} if self.why_no_cosine else load_directions(self.a.index.run, self.b.index.run, n_a, n_b)

    @property
    def keep(self) -> bool:
        """Whether all values are kept for one-to-one pairs."""
        return max(self.a.d_sae, self.b.d_sae) <= self.cfg.max_paired

    def _cosines(self, directions: Directions) -> Measured:
        null = directions.randomised(torch.Generator().manual_seed(self.cfg.seed))
        found, chance = (survey_directions(each, keep=self.keep) for each in (directions, null))
        return Measured.of(found, chance, NULL, self.cfg.quantile)

    def _survey(self, meeting: Meeting, close: Close | None, label: str) -> Survey:
        return survey(meeting, self.cfg, close, self.progress, label, keep=self.keep)

    def _families(self, laid: Laid, found: Survey) -> dict[str, Families]:
        return {"a": families(laid, found.of_a, self.cfg), "b": families(laid.turned, found.of_b, self.cfg)}

    def _write(self, found: Survey, measured: dict[str, Measured], own: dict[str, Families]) -> None:
        rankings = {**{name: one.ranking for name, one in measured.items()}, **found.rankings}
        a, b = (
            tables.Side(name, n, {measure: ranking.of(name) for measure, ranking in rankings.items()})
            for name, n in zip("ab", self.n_fired, strict=True)
        )
        best, paired, children = tables.best(a, b), tables.one_to_one(measured), tables.children(own)
        pairs = tables.named_pairs(best, paired, children, self.b.d_sae)
        for name, columns in {
            "latents": tables.latents(a, b, measured, self.laid.n_tokens, self.cfg.min_fired),
            "best": best,
            "one_to_one": paired,
            "pairs": PairFigures(self.meeting, self.directions).of(*pairs, self.progress),
            "thresholds": tables.thresholds(measured, self.cfg.quantile),
            "families": tables.families(own),
            "children": children,
        }.items():
            write_table(self.folder, name, columns)

    def _summary(
        self, measured: dict[str, Measured], own: dict[str, Families], by_chance: dict[str, Families] | None
    ) -> dict[str, Any]:
        n_fired, n_shared = self.n_fired, self.laid.n_tokens
        found = {
            "n_tokens": n_shared,
            "n_tokens_of_one_side": int((self.a.counted | self.b.counted).sum()) - n_shared,
            "n_alive": {side: int((n > 0).sum()) for side, n in zip("ab", n_fired, strict=True)},
            "n_sampled": {"a": int((~self.a.exact).sum()), "b": int((~self.b.exact).sum())},
            "paired": "one to one" if self.keep else f"mutually nearest: more than {self.cfg.max_paired} latents",
            "measures": tables.results(measured),
            "share_in_both": tables.share_in_both(measured),
            "n_families": {side: len(one.parent) for side, one in own.items()},
            "null_n_families": by_chance and {side: len(one.parent) for side, one in by_chance.items()},
        }
        return found | ({"no_cosine": self.why_no_cosine} if self.why_no_cosine else {})


def _close(directions: Directions | None, threshold: float | None) -> Close | None:
    return None if threshold is None else Close(directions, threshold)
