"""What a run of scores comes to: means over latents, nulls beside them, and who was left out."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from autointerp.arms import EXPLANATION
from autointerp.statistics import clustered_mean, compare
from store.index import parts_of
from store.run import Run


def summary(folder: Path, explained: Run) -> dict[str, Any]:
    """The results of the run in `folder`: every arm's mean, and what the explanations get above each null."""
    table = parts_of(folder, "scores", ["latent", "arm", "value", "n_judged", "n_unparsed"])
    by_arm = {arm: _values(table, arm) for arm in table.column("arm").unique().to_pylist()}
    own = by_arm.get(EXPLANATION, {})
    groups = explained_together(explained)
    arms = {arm: _mean(values, groups) for arm, values in by_arm.items()}
    above = {arm: _above(own, values, groups) for arm, values in by_arm.items() if arm != EXPLANATION}
    return {
        **arms,
        "above": above,
        "n_unparsed": int(table.column("n_unparsed").to_numpy().sum()),
        "n_judged": int(table.column("n_judged").to_numpy().sum()),
        "denominators": _denominators(table.filter(pc.field("arm") == EXPLANATION).to_pylist(), explained),
    }


def _values(table: pa.Table, arm: str) -> dict[int, float | None]:
    rows = table.filter(pc.field("arm") == arm)
    return dict(zip(rows.column("latent").to_pylist(), rows.column("value").to_pylist(), strict=True))


def explained_together(explained: Run) -> dict[int, int]:
    """The cluster, by its medoid, of each latent that a run explained together with others: one draw of words, so that
    only whole clusters are independent."""
    table = parts_of(explained.folder, "clusters", ["latent", "medoid"])
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _mean(values: dict[int, float | None], groups: Mapping[int, int]) -> dict[str, Any]:
    mean = clustered_mean(list(values.values()), [groups.get(latent, latent) for latent in values])
    return {
        "mean": mean.value,
        "interval": mean.interval,
        "n_scored": mean.n_rows,
        "n_not_scored": mean.n_missing,
    }


def _above(own: dict[int, float | None], null: dict[int, float | None], groups: Mapping[int, int]) -> dict[str, Any]:
    found = compare(own, null, groups=groups)
    return {
        "difference": found.difference,
        "interval": found.interval,
        "p_value": found.p_value,
        "n_latents": found.n_latents,
    }


def _denominators(own: list[dict[str, Any]], explained: Run) -> dict[str, int]:
    """What became of every latent of the dictionary: the counts sum to its width."""
    fates = Counter(map(_fate, own))
    asked_of = {fate: fates[fate] for fate in ("skipped", "unparsed", "scored")}
    told = explained.results.get("latents")
    if told is None:
        return asked_of
    width = sum(told.values())
    n_unexplained = sum(explained.results["n_unexplained"].values())
    asked = explained.results["n_chosen"]
    return {
        "width": width,
        "dead": told["dead"],
        "not_chosen": width - told["dead"] - asked,
        "unexplained": n_unexplained,
        **asked_of,
    }


def _fate(row: dict[str, Any]) -> str:
    """Without a value, a latent was `unparsed` where answers about it could not be read, and else `skipped`: there was
    nothing to ask that a score could be made of."""
    if row["value"] is not None:
        return "scored"
    return "unparsed" if row["n_unparsed"] else "skipped"
