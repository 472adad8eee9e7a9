"""The job that aligns dictionaries: every two are paired, and their pairs judged by another measure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from activations.hook_point import NAME
from activations.progress import Progress, no_progress
from autointerp.align import AlignConfig, Alignment, Nearness, by_distance, by_vectors, embedded, judged
from autointerp.embedders import EMBEDDERS, Embedder
from autointerp.explaining import explanations_of, known
from autointerp.matching.config import MatchConfig
from autointerp.matching.directions import load_directions, why_no_cosine
from autointerp.matching.job import match_indexes
from autointerp.matching.pairing import Pairs
from store.aligned import SCHEMAS
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.matching import Matching, write_table
from store.run import Run, find_run, list_runs, start_run

By = Literal["activations", "weights", "explanations"]


@dataclass(frozen=True, kw_only=True)
class AligningConfig:
    """By what latents are paired, and how."""

    by: By = "activations"
    """activations: correlation over the same tokens, as `monosem match`; weights: cosine of decoder rows;
    explanations: cosine of their embeddings. Pairs are judged by explanations, and those by
    explanations by weights."""
    embedder: str = "minilm"
    """What compares texts: minilm (a small model) or hashed (counts of words and pairs, no model)."""
    align: AlignConfig = field(default_factory=AlignConfig)

    def __post_init__(self) -> None:
        known(self.embedder, EMBEDDERS, "embedder")


@dataclass(frozen=True)
class Side:
    """A dictionary to align."""

    index: Run
    explanations: tuple[Run, ...]
    """Oldest first: of what several say of a latent, the newest counts."""
    hook_point: str
    layer: int
    dead: np.ndarray
    """`[d_sae]` bool."""

    @classmethod
    def of(cls, run: Run) -> "Side":
        """From an index, with all explanations by the explainer that was the last; or from one run of explanations.

        Raises:
            UsageError: it is another kind of run, or the index has no dictionary of one block.
        """
        if run.kind not in ("index", "explanations"):
            raise UsageError(f"{run.id} is of kind {run.kind}: name an index, or explanations of one")
        index = run if run.kind == "index" else find_run(run.root, run.inputs["index"], "index")
        said = [each for each in list_runs(run.root, "explanations") if each.inputs.get("index") == index.id]
        alike = [each for each in said if each.config.get("explainer") == said[-1].config.get("explainer")]
        explanations = (run,) if run.kind == "explanations" else tuple(alike)
        if "sae" not in index.inputs:
            raise UsageError(f"index {index.id} is of no dictionary here: name one made by `monosem index`")
        hook_point = find_run(run.root, index.inputs["sae"], "sae").config["hook_point"]
        place = NAME.match(hook_point)
        if place is None:
            raise UsageError(f"{hook_point} of index {index.id} is in no block: name dictionaries of blocks")
        dead = FeatureIndex(index.folder).arrow("SELECT dead FROM latents ORDER BY latent").column(0).to_numpy(False)
        return cls(index, explanations, hook_point, int(place["layer"]), dead)

    @cached_property
    def texts(self) -> dict[int, str]:
        """By latent."""
        return {each.latent: each.text for run in self.explanations for each in explanations_of(run)}


class Paired(NamedTuple):
    """Latents of two dictionaries, and how alike they are beside the null."""

    pairs: Pairs
    matched: np.ndarray
    """`[n_pairs]` bool: above the null's threshold."""
    n_latents: int
    mean_best: float | None
    mean_best_null: float | None
    mutual: float | None
    mutual_null: float | None

    @property
    def kept(self) -> Pairs:
        """The matched ones."""
        return Pairs(*(column[self.matched] for column in self.pairs))


class Found(NamedTuple):
    """One alignment of two dictionaries."""

    a: Side
    b: Side
    paired: Paired
    judged_by: str | None
    alignment: Alignment
    """Of the matched pairs; likeness is NaN throughout where nothing judges them."""

    @property
    def layers_apart(self) -> int:
        """Blocks between the two."""
        return abs(self.a.layer - self.b.layer)


def align(cfg: AligningConfig, named: Sequence[Run], root: Path, progress: Progress = no_progress) -> Run:
    """Align every two of some dictionaries, into `root/alignment/<hash>`, or return what is already there.

    Args:
        cfg: by what, and how.
        named: indexes, or explanations of them; two or more.
        root: of the run, and of the matchings that `activations` needs and makes.
        progress: told of every two.

    Raises:
        UsageError: there are fewer than two, or two have nothing to be aligned by: other tokens, other spaces, or no
            explanations.
    """
    sides = list({side.index.id: side for side in map(Side.of, named)}.values())
    if len(sides) < 2:
        raise UsageError(f"{len(sides)} dictionary was named, and two or more are aligned: name other indexes")
    inputs = {f"index {i}": side.index.id for i, side in enumerate(sides)}
    inputs |= {
        f"explanations {i} {j}": run.id for i, side in enumerate(sides) for j, run in enumerate(side.explanations)
    }
    with start_run(root, "alignment", cfg, inputs) as run:
        if not run.finished:
            job, pairs = _Job(cfg, root, progress), list(combinations(sides, 2))
            found = [job.align(a, b) for a, b in progress(pairs, len(pairs), f"align by {cfg.by}")]
            nearness = by_distance([(each.a.layer, each.b.layer, each.alignment) for each in found])
            for table, rows in _tables(cfg, found, nearness).items():
                columns = {name: [row[name] for row in rows] for name in SCHEMAS[table].names}
                write_table(run.folder, table, columns, SCHEMAS)
            run.finish(_results(found, nearness))
    return run


@dataclass(frozen=True)
class _Job:
    cfg: AligningConfig
    root: Path
    progress: Progress

    def align(self, a: Side, b: Side) -> Found:
        paired = WAYS[self.cfg.by](self, a, b)
        judged_by, rows = self._judge(a, b)
        return Found(a, b, paired, judged_by, judged(paired.kept, *rows, self.cfg.align))

    def by_activations(self, a: Side, b: Side) -> Paired:
        own = self.cfg.align
        cfg = MatchConfig(quantile=own.quantile, max_paired=own.max_paired, seed=own.seed)
        matching = Matching(match_indexes(cfg, a.index, b.index, self.root, self.progress).folder)
        pairs = matching.sql("SELECT a, b, value, matched FROM one_to_one WHERE measure = 'correlation' ORDER BY a")
        best = matching.sql("SELECT count(*), avg(value), avg(mutual::INT) FROM best WHERE measure = 'correlation'")
        null = matching.sql("SELECT mean, mutual FROM thresholds WHERE measure = 'correlation'")
        n, mean, mutual = best.iloc[0].tolist()
        mean_null, mutual_null = null.iloc[0].tolist() if len(null) else (None, None)
        found = Pairs(*(pairs[name].to_numpy() for name in ("a", "b", "value")))
        return Paired(found, pairs["matched"].to_numpy(bool), int(n), mean, mean_null, mutual, mutual_null)

    def by_weights(self, a: Side, b: Side) -> Paired:
        if why := why_no_cosine(a.index, b.index):
            raise UsageError(f"no cosine of indexes {a.index.id} and {b.index.id}: {why}: align with --by activations")
        return self._by_rows(*_decoders(a, b))

    def by_explanations(self, a: Side, b: Side) -> Paired:
        for side in (a, b):
            if not side.explanations:
                raise UsageError(
                    f"index {side.index.id} has no explanations: run `monosem explain --index-run {side.index.id}`"
                )
        return self._by_rows(self._explained(a), self._explained(b))

    def _by_rows(self, a: Tensor, b: Tensor) -> Paired:
        found = by_vectors(a, b, self.cfg.align)
        best, null = found.ranking, found.null
        mean, mean_null = (float(each.best.mean()) if len(each.best) else None for each in (best, null))
        shares = best.share_mutual, null.share_mutual
        return Paired(found.pairs, found.matched, len(best.best), mean, mean_null, *shares)

    def _judge(self, a: Side, b: Side) -> tuple[str | None, tuple[Tensor, Tensor]]:
        """By a measure that did not pair them, where there is one."""
        if self.cfg.by == "explanations":
            if not why_no_cosine(a.index, b.index):
                return "weights", _decoders(a, b)
        elif a.explanations and b.explanations:
            return "explanations", (self._explained(a), self._explained(b))
        return None, (_unknown(a), _unknown(b))

    @cached_property
    def _embedder(self) -> Embedder:
        return EMBEDDERS[self.cfg.embedder]()

    @cached_property
    def _rows(self) -> dict[str, Tensor]:
        return {}

    def _explained(self, side: Side) -> Tensor:
        if side.index.id not in self._rows:
            self._rows[side.index.id] = embedded(side.texts, len(side.dead), self._embedder)
        return self._rows[side.index.id]


WAYS: dict[By, Callable[[_Job, Side, Side], Paired]] = {
    "activations": _Job.by_activations,
    "weights": _Job.by_weights,
    "explanations": _Job.by_explanations,
}


def _decoders(a: Side, b: Side) -> tuple[Tensor, Tensor]:
    n_a, n_b = (torch.from_numpy((~side.dead).astype(np.int64)) for side in (a, b))
    found = load_directions(a.index, b.index, n_a, n_b)["decoder"]
    return found.a, found.b


def _unknown(side: Side) -> Tensor:
    return torch.full((len(side.dead), 1), torch.nan)


def _tables(cfg: AligningConfig, found: Sequence[Found], nearness: Nearness) -> dict[str, list[dict[str, Any]]]:
    return {
        "alignments": [_alignment_row(cfg, each) for each in found],
        "pairs": [row for each in found for row in _pair_rows(each)],
        "distances": [
            {
                "layers_apart": each.layers_apart,
                "n_alignments": each.n_alignments,
                "difference": each.above_null.value,
                **_ends(each.above_null.interval),
            }
            for each in nearness.distances
        ],
    }


OF_ALL = ("n_latents", "mean_best", "mean_best_null", "mutual", "mutual_null")
"""Columns that are of all latents, as `Paired` has them."""


def _alignment_row(cfg: AligningConfig, found: Found) -> dict[str, Any]:
    paired, above = found.paired, found.alignment.above_null
    likeness, null = found.alignment.likeness, found.alignment.null
    known = ~np.isnan(null)
    return {
        **_names(found),
        "hook_point_a": found.a.hook_point,
        "hook_point_b": found.b.hook_point,
        "layers_apart": found.layers_apart,
        "paired_by": cfg.by,
        **{name: getattr(paired, name) for name in OF_ALL},
        "n_pairs": len(paired.pairs.a),
        "n_matched": int(paired.matched.sum()),
        "n_judged": int(known.sum()),
        "judged_by": found.judged_by,
        "likeness": float(likeness[known].mean()) if known.any() else None,
        "likeness_null": float(null[known].mean()) if known.any() else None,
        "difference": above.difference,
        **_ends(above.interval),
        "p_value": above.p_value,
    }


def _pair_rows(found: Found) -> list[dict[str, Any]]:
    """All pairs; those that are not matched have no likeness."""
    paired, n = found.paired, len(found.paired.pairs.a)
    likeness, null = np.full(n, np.nan), np.full(n, np.nan)
    likeness[paired.matched], null[paired.matched] = found.alignment.likeness, found.alignment.null
    columns = (*paired.pairs, paired.matched, likeness, null)
    names = ("latent_a", "latent_b", "value", "matched", "likeness", "likeness_null")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [{**_names(found), **_filled(zip(names, row, strict=True))} for row in rows]


def _names(found: Found) -> dict[str, str]:
    return {"a": found.a.index.id, "b": found.b.index.id}


def _filled(cells: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in cells}


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"ci_low": low, "ci_high": high}


def _results(found: Sequence[Found], nearness: Nearness) -> dict[str, Any]:
    near = nearness.near_minus_far
    return {
        "n_alignments": len(found),
        "n_matched": sum(int(each.paired.matched.sum()) for each in found),
        "near_minus_far": None if near is None else near._asdict(),
        "to_explain": _to_explain(found),
    }


def _to_explain(found: Sequence[Found]) -> dict[str, list[int]]:
    """By index, latents without an explanation whose partner has one: what would let more pairs be judged."""
    wanted: dict[str, set[int]] = {}
    for each in found:
        a, b = each.a.texts, each.b.texts
        for of_a, of_b in zip(each.paired.kept.a.tolist(), each.paired.kept.b.tolist(), strict=True):
            if (of_a in a) != (of_b in b):
                side, latent = (each.b, of_b) if of_a in a else (each.a, of_a)
                wanted.setdefault(side.index.id, set()).add(latent)
    return {index: sorted(latents) for index, latents in wanted.items()}
