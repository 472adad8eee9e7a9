"""Which latents of two dictionaries are the same, which only one of them has, and which are one's several."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from app.dictionaries import Dictionary
from store.feature_index import FeatureIndex
from store.matching import Matching
from store.run import Run, list_runs

if TYPE_CHECKING:
    from autointerp.matching.nearest import Nearest, Side

SIDES = ("a", "b")
OTHER = {"a": "b", "b": "a"}
MATCHED, ONLY_A, ONLY_B = "matched", "only in a", "only in b"
KINDS = (MATCHED, ONLY_A, ONLY_B)
PAIR_COLUMNS = ("kind", "a", "b", "value", "decoder", "correlation", "jaccard")
SPLIT_COLUMNS = ("side", "parent", "children", "n_children", "coverage", "largest", "overlap")
MATCHED_ROWS = """
SELECT o.a, o.b, o.value, p.decoder, p.correlation, p.jaccard
FROM one_to_one o JOIN pairs p USING (a, b) WHERE o.measure = ? AND o.matched
"""
ALONE_ROWS = """
SELECT l.latent, n.other, n.value FROM latents l
LEFT JOIN best n ON n.side = l.side AND n.latent = l.latent AND n.measure = ? WHERE l.side = ? AND l.alone
"""
SPLIT_ROWS = """
SELECT f.side, f.parent, string_agg(c.latent::VARCHAR, ', ' ORDER BY c.share DESC) AS children, f.n_children,
       f.coverage, f.largest, f.overlap
FROM families f JOIN children c ON c.side = f.side AND c.parent = f.parent AND c.role = 'child'
GROUP BY f.side, f.parent, f.n_children, f.coverage, f.largest, f.overlap ORDER BY f.coverage DESC, f.parent
"""
BEST_ROWS = "SELECT value FROM best WHERE measure = ? AND side = ? AND value IS NOT NULL"
COUNTS = """
SELECT side, count(*) AS n, count_if(dead) AS dead, count_if(matched) AS matched, count_if(alone) AS alone,
       count_if(NOT matched AND NOT alone) AS taken, count_if(matched IS NULL AND NOT dead) AS unjudged
FROM latents GROUP BY side
"""
KNOWN = """
SELECT latent, explanation, score, ci_low, ci_high, density, n_fired, promotes FROM features ORDER BY latent
"""


@dataclass(frozen=True)
class Pairing:
    """Latents of two dictionaries laid side by side."""

    measure: str
    """`decoder`: cosines of decoder rows; or `correlation` of activations."""
    threshold: float | None
    """Above it a pair is matched: the 99 % quantile of what chance gives."""
    pairs: pd.DataFrame
    """`PAIR_COLUMNS`: matched pairs, and each latent that only one side has beside its nearest of the other."""
    splits: pd.DataFrame
    """`SPLIT_COLUMNS`: latents that are several of the other side; empty where only directions were compared."""
    counts: Mapping[str, Mapping[str, int]]
    """By side: `n dead matched alone taken unjudged` latents; `taken` have a match above chance that is another's."""
    matching: Run | None = None
    """The run it is from; None where it was computed from the decoders alone."""
    chance: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By side, values of each latent's best partner where one of the dictionaries is random."""
    best: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By side, values of each latent's best partner."""


def index_of(root: Path, one: Dictionary) -> Run | None:
    """The newest index of a dictionary; a step of a training has none."""
    found = [run for run in list_runs(root, "index") if run.inputs.get("sae") == one.run.id]
    return found[-1] if found and one.step is None else None


def matching_of(root: Path, a: Dictionary, b: Dictionary) -> tuple[Run, bool] | None:
    """The newest matching of two dictionaries, and whether its a is our b."""
    if a.step is not None or b.step is not None:
        return None
    sae_of = {run.id: run.inputs.get("sae") for run in list_runs(root, "index")}
    for run in reversed(list_runs(root, "matching")):
        saes = tuple(sae_of.get(run.inputs[side]) for side in SIDES)
        if saes in ((a.run.id, b.run.id), (b.run.id, a.run.id)):
            return run, saes[0] != a.run.id
    return None


def from_matching(run: Run, swapped: bool) -> Pairing:
    """What a run of `monosem match` found.

    Args:
        run: the matching.
        swapped: whether its a is what is called b here.

    Raises:
        UsageError: a table is missing or damaged.
    """
    matching = Matching(run.folder)
    found = matching.sql("SELECT measure, threshold FROM thresholds")
    thresholds = {str(name): float(value) for name, value in found.itertuples(index=False)}
    measure = "decoder" if "decoder" in thresholds else "correlation"
    sides = OTHER if swapped else {side: side for side in SIDES}
    pairs = matching.sql(MATCHED_ROWS, [measure]).rename(columns=sides).assign(kind=MATCHED)
    alone = []
    for theirs, ours in sides.items():
        rows = matching.sql(ALONE_ROWS, [measure, theirs])
        rows = rows.rename(columns={"latent": ours, "other": OTHER[ours]})
        alone.append(rows.assign(kind=ONLY_A if ours == "a" else ONLY_B, **{measure: rows["value"]}))
    best = {ours: matching.sql(BEST_ROWS, [measure, theirs])["value"] for theirs, ours in sides.items()}
    chance = matching.sql("SELECT chance FROM one_to_one WHERE measure = ? AND chance IS NOT NULL", [measure])
    counts = matching.sql(COUNTS).astype({"n": int}).set_index("side").rename(index=sides)
    splits = matching.sql(SPLIT_ROWS)
    return Pairing(
        measure=measure,
        threshold=thresholds.get(measure),
        pairs=_in_order([pairs, *alone]),
        splits=splits.replace({"side": sides}),
        counts={str(side): {str(k): int(v) for k, v in row.items()} for side, row in counts.iterrows()},
        matching=run,
        chance={sides["a"]: np.asarray(chance["chance"])},
        best={side: np.asarray(values) for side, values in best.items()},
    )


def from_directions(found: "Nearest", n_a: int, n_b: int) -> Pairing:
    """What the decoders alone say: matched are pairs in which each is the other's nearest, above the threshold.

    Args:
        found: the nearest directions of both sides.
        n_a: latents of a, the dead ones among them.
        n_b: of b.
    """
    b_of = dict(zip(found.a.latent.tolist(), found.a.other.tolist(), strict=True))
    a_of = dict(zip(found.b.latent.tolist(), found.b.other.tolist(), strict=True))
    above = found.a.cosine > found.threshold
    mutual = np.array([a_of[b] == a for a, b in b_of.items()])
    matched = pd.DataFrame({"a": found.a.latent, "b": found.a.other, "value": found.a.cosine})[above & mutual]
    parts = [matched.assign(kind=MATCHED)]
    counts = {}
    for side, one, n in (("a", found.a, n_a), ("b", found.b, n_b)):
        alone = one.cosine <= found.threshold
        rows = pd.DataFrame({side: one.latent, OTHER[side]: one.other, "value": one.cosine})[alone]
        parts.append(rows.assign(kind=ONLY_A if side == "a" else ONLY_B))
        counts[side] = _counts(one, n, len(matched), int(alone.sum()))
    pairs = _in_order(parts)
    return Pairing(
        measure="decoder",
        threshold=found.threshold,
        pairs=pairs.assign(decoder=pairs["value"]),
        splits=pd.DataFrame(columns=list(SPLIT_COLUMNS)),
        counts=counts,
        chance={"a": found.a.chance, "b": found.b.chance},
        best={"a": found.a.cosine, "b": found.b.cosine},
    )


def _counts(one: "Side", n: int, n_matched: int, n_alone: int) -> dict[str, int]:
    judged = len(one.latent)
    return {
        "n": n,
        "dead": n - judged,
        "matched": n_matched,
        "alone": n_alone,
        "taken": judged - n_matched - n_alone,
        "unjudged": 0,
    }


def _in_order(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Matched pairs first, the surest on top; missing numbers stay missing."""
    rows = pd.concat([part.reindex(columns=list(PAIR_COLUMNS)) for part in parts if len(part)] or [_none()])
    rows = rows.astype({"a": "Int64", "b": "Int64", "value": float, "decoder": float, "correlation": float})
    rank = rows["kind"].map(KINDS.index)
    return rows.iloc[np.lexsort((-rows["value"].fillna(-np.inf), rank))].reset_index(drop=True)


def _none() -> pd.DataFrame:
    return pd.DataFrame(columns=list(PAIR_COLUMNS))


def known_of(run: Run | None) -> pd.DataFrame:
    """What an index knows of each latent, by its number; no rows where there is no index.

    Raises:
        UsageError: the index cannot be opened.
    """
    if run is None:
        return pd.DataFrame(columns=["explanation", "score", "density", "promotes"], index=pd.Index([], name="latent"))
    return FeatureIndex(run.folder).sql(KNOWN).set_index("latent")


def with_explanations(pairs: pd.DataFrame, known: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The pairs with `a_explanation` and `b_explanation`, where there are some."""
    texts = {side: known[side]["explanation"].to_dict() for side in SIDES}
    return pairs.assign(**{f"{side}_explanation": [texts[side].get(one) for one in pairs[side]] for side in SIDES})


def chosen_rows(rows: pd.DataFrame, kind: str, text: str, order: str, *, ascending: bool) -> pd.DataFrame:
    """The rows of one kind whose explanations hold `text`, upper or lower case alike, in the order asked for."""
    kept = rows["kind"] == kind
    if text:
        found = [rows[f"{side}_explanation"].str.contains(text, case=False, regex=False, na=False) for side in SIDES]
        kept &= found[0] | found[1]
    ordered = rows.loc[kept].sort_values(order, ascending=ascending, kind="stable", na_position="last")
    return ordered.reset_index(drop=True)
