"""What a matching writes: its tables' columns and the figures it ends with, from rankings and their nulls."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from autointerp.matching.families import Families
from autointerp.matching.pairing import Pairs, Ranking
from sae.decoder_match import PARTNER_COS

MATCHED_BY = ("decoder", "encoder", "correlation")
"""Measures by which latents are paired, each beside its null."""
DECISIVE = ("decoder", "correlation")
"""Those by which a latent counts as matched, or alone."""


class Measured(NamedTuple):
    """One measure's pairs and what chance makes of it."""

    ranking: Ranking
    null: Ranking
    pairs: Pairs
    null_pairs: Pairs
    null_name: str
    threshold: float | None
    """None where the null gave nothing to compare with."""

    @classmethod
    def of(cls, ranking: Ranking, null: Ranking, null_name: str, quantile: float) -> "Measured":
        """Pair both, and take the threshold from the null's best partners."""
        best = null.best
        threshold = float(np.quantile(best, quantile)) if len(best) else None
        found = cls(ranking, null, ranking.one_to_one(), null.one_to_one(), null_name, threshold)
        ranking.forget()
        null.forget()
        return found

    @property
    def matched(self) -> np.ndarray:
        """`[n_pairs]` bool."""
        above = np.zeros(len(self.pairs.value), bool)
        return above if self.threshold is None else self.pairs.value > self.threshold


class Side(NamedTuple):
    """What is known of the latents of one side."""

    name: str
    n_fired: np.ndarray
    best: dict[str, tuple[np.ndarray, np.ndarray]]
    """By measure the best value of each latent and whose it is."""


def best(a: Side, b: Side) -> dict[str, np.ndarray]:
    """The columns of `best`."""
    parts: list[dict[str, Any]] = []
    for own, theirs in ((a, b), (b, a)):
        for measure, (value, other) in own.best.items():
            latent = np.flatnonzero(other >= 0)
            mutual = theirs.best[measure][1][other[latent]] == latent
            names = {"side": np.full(len(latent), own.name), "measure": np.full(len(latent), measure)}
            parts.append({**names, "latent": latent, "other": other[latent], "value": value[latent], "mutual": mutual})
    return _stacked(parts)


def one_to_one(measured: Mapping[str, Measured]) -> dict[str, np.ndarray]:
    """The columns of `one_to_one`."""
    parts: list[dict[str, Any]] = []
    for measure, one in measured.items():
        null = np.full(len(one.ranking.best_a), np.nan)
        null[one.null_pairs.a] = one.null_pairs.value
        found = {"a": one.pairs.a, "b": one.pairs.b, "value": one.pairs.value, "chance": null[one.pairs.a]}
        parts.append({"measure": np.full(len(one.pairs.a), measure), **found, "matched": one.matched})
    return _stacked(parts)


def thresholds(measured: Mapping[str, Measured], quantile: float) -> dict[str, list[Any]]:
    """The columns of `thresholds`, without measures whose null gave nothing."""
    known = {name: one for name, one in measured.items() if one.threshold is not None}
    return {
        "measure": list(known),
        "against": [one.null_name for one in known.values()],
        "quantile": [quantile] * len(known),
        "threshold": [one.threshold for one in known.values()],
        "n": [len(one.null.best) for one in known.values()],
        "mean": [float(one.null.best.mean()) for one in known.values()],
        "mutual": [one.null.share_mutual for one in known.values()],
    }


def latents(
    a: Side, b: Side, measured: Mapping[str, Measured], n_tokens: int, min_fired: int
) -> dict[str, np.ndarray | list[Any]]:
    """The columns of `latents`."""
    return _stacked([_of_side(side, measured, n_tokens, min_fired) for side in (a, b)])


def _of_side(side: Side, measured: Mapping[str, Measured], n_tokens: int, min_fired: int) -> dict[str, Any]:
    n = len(side.n_fired)
    by = {f"by_{name}": np.full(n, None, object) for name in MATCHED_BY}
    above = {name: np.full(n, None, object) for name in DECISIVE}
    for name, one in measured.items():
        if one.threshold is None:
            continue
        value = side.best[name][0]
        judged = ~np.isnan(value)
        paired = (one.pairs.a if side.name == "a" else one.pairs.b)[one.matched]
        by[f"by_{name}"][judged] = np.isin(np.flatnonzero(judged), paired)
        if name in above:
            above[name][judged] = value[judged] > one.threshold
    near = [_any(values) for values in zip(*above.values(), strict=True)]
    return {
        "side": np.full(n, side.name),
        "latent": np.arange(n),
        "n_fired": side.n_fired,
        "density": side.n_fired / max(n_tokens, 1),
        "dead": side.n_fired == 0,
        "rare": side.n_fired < min_fired,
        **by,
        "matched": _objects([_any(values) for values in zip(*(by[f"by_{name}"] for name in DECISIVE), strict=True)]),
        "alone": _objects([None if each is None else not each for each in near]),
    }


def _any(values: Iterable[bool | None]) -> bool | None:
    """Whether any is true; None where none is known."""
    known = [bool(value) for value in values if value is not None]
    return any(known) if known else None


def _objects(values: list[Any]) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def families(found: Mapping[str, Families]) -> dict[str, np.ndarray]:
    """The columns of `families`; `found` is by the parents' side."""
    names = ("parent", "n_children", "n_fired", "coverage", "largest", "overlap")
    parts = [
        {"side": np.full(len(one.parent), side), **{name: getattr(one, name) for name in names}}
        for side, one in found.items()
    ]
    return _stacked(parts)


def children(found: Mapping[str, Families]) -> dict[str, np.ndarray]:
    """The columns of `children`."""
    parts: list[dict[str, Any]] = []
    for side, one in found.items():
        for role, some in (("child", one.children), ("absorbs", one.absorbing)):
            names = {"side": np.full(len(some.parent), side), "role": np.full(len(some.parent), role)}
            own = {"parent": some.parent, "latent": some.latent, "share": some.share, "implies": some.implies}
            parts.append({**names, **own, "parent_silent": 1 - some.implies, "decoder": some.near})
    return _stacked(parts)


def named_pairs(
    best_rows: Mapping[str, np.ndarray], paired: Mapping[str, np.ndarray], related: Mapping[str, np.ndarray], d_b: int
) -> tuple[np.ndarray, np.ndarray]:
    """Every pair that a table names, once, in order of a."""
    keys = [paired["a"].astype(np.int64) * d_b + paired["b"]]
    for rows, own, other in ((best_rows, "latent", "other"), (related, "parent", "latent")):
        of_a = rows["side"] == "a"
        a, b = np.where(of_a, rows[own], rows[other]), np.where(of_a, rows[other], rows[own])
        keys.append(a.astype(np.int64) * d_b + b)
    found = np.unique(np.concatenate(keys))
    return found // d_b, found % d_b


def results(measured: Mapping[str, Measured]) -> dict[str, dict[str, float | int | None]]:
    """The figures of each measure, each beside its null's."""
    return {name: _figures(one) for name, one in measured.items()}


def _figures(one: Measured) -> dict[str, float | int | None]:
    return {
        "threshold": one.threshold,
        "mean_best_a": _mean(one.ranking.best_a),
        "null_mean_best_a": _mean(one.null.best_a),
        "mean_best_b": _mean(one.ranking.best_b),
        "null_mean_best_b": _mean(one.null.best_b),
        "n_pairs": len(one.pairs.a),
        "mean_of_pairs": _mean(one.pairs.value),
        "null_mean_of_pairs": _mean(one.null_pairs.value),
        "n_matched": None if one.threshold is None else int(one.matched.sum()),
    }


def share_in_both(measured: Mapping[str, Measured]) -> float | None:
    """Of decoder pairs, those that are encoder pairs too with both cosines of at least 0.7: Paulo & Belrose's latents
    in common; None without both."""
    if not {"decoder", "encoder"} <= set(measured) or not len(measured["decoder"].pairs.a):
        return None
    by_encoder = {(a, b): value for a, b, value in zip(*measured["encoder"].pairs, strict=True)}
    pairs = measured["decoder"].pairs
    both = [min(value, by_encoder.get((a, b), -1.0)) for a, b, value in zip(*pairs, strict=True)]
    return float((np.array(both) >= PARTNER_COS).mean())


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _stacked(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
