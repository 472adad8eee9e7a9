"""What a sweep came to: every cell beside the clean model, the effect beside the controls, and suggested strengths."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autointerp.statistics import clustered_mean
from autointerp.sweep.arms import (
    CLEAN,
    INSTRUCTION,
    LATENTS,
    MEAN_DIFFERENCE,
    RANDOM_DIRECTION,
    RANDOM_LATENTS,
    takes_away,
)
from autointerp.sweep.config import SweepConfig
from autointerp.sweep.judge import BOTH, RATED
from autointerp.sweep.reading import Rows

EFFECT = "mass"
OTHER_EFFECTS = ("probe", *RATED, BOTH)
"""Of what was written, where it was measured."""
CONTROLS = (RANDOM_LATENTS, RANDOM_DIRECTION, MEAN_DIFFERENCE)
MOST_PERPLEXITY = 1.25
"""Times the clean texts' perplexity that steered ones may have in the suggested range."""


def n_unrated(measures: Rows) -> int:
    """Texts without both ratings of the judge: empty ones, and those of which a reply could not be read."""
    return sum(row["measure"] == BOTH and row["value"] is None for row in measures)


def summary(measures: Rows) -> Rows:
    """Every cell and measure over texts, beside the clean model's on the same texts."""
    by_cell: dict[tuple[Any, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in measures:
        if row["value"] is not None:
            key = (row["arm"], row["draw"], row["tier"], row["strength"], row["measure"])
            by_cell[key][row["item"]].append(row["value"])
    means = {key: {item: float(np.mean(values)) for item, values in items.items()} for key, items in by_cell.items()}
    return [_summed(key, own, means.get((CLEAN, 0, "", 0.0, key[-1]), {})) for key, own in means.items()]


def _summed(key: tuple[Any, ...], own: dict[int, float], clean: dict[int, float]) -> dict[str, Any]:
    mean, both = _mean(own.values()), sorted(own.keys() & clean.keys())
    above = _mean(own[item] - clean[item] for item in both)
    names = ("arm", "draw", "tier", "strength", "measure")
    return dict(zip(names, key, strict=True)) | {
        "mean": mean[0],
        "ci_low": mean[1],
        "ci_high": mean[2],
        "n": len(own),
        "above_clean": above[0],
        "above_low": above[1],
        "above_high": above[2],
    }


def _mean(values: Iterable[float]) -> tuple[float | None, float | None, float | None]:
    every = list(values)
    found = clustered_mean(every, range(len(every)))
    low, high = found.interval or (None, None)
    return found.value, low, high


def results(cfg: SweepConfig, rows: Rows, measures: Rows) -> dict[str, Any]:
    """The effect at every tier and strength beside the controls, and which strengths are suggested.

    Args:
        cfg: what was asked.
        rows: as `summary` gives them.
        measures: what those are of.
    """
    told = _told_of(measures)
    effects = [_effect(rows, told, tier, strength) for tier in cfg.tiers for strength in cfg.tried]
    asked = _pick(rows, INSTRUCTION, {"tier": "", "strength": 0.0}, EFFECT)
    return {
        "effects": effects,
        "instruction": asked and {"mass": asked["mean"], **_above(asked)},
        # Without texts nothing is known of how likely they are.
        "suggested": {
            tier: [each["strength"] for each in effects if each["tier"] == tier and _good(cfg, each)]
            for tier in cfg.tiers
            if cfg.n_seeds
        },
        "not_finite": [
            {name: row[name] for name in ("arm", "draw", "tier", "strength")}
            for row in rows
            if row["measure"] == "not_finite"
        ],
    }


def _told_of(measures: Rows) -> dict[tuple[str, float, str], tuple[int, int]]:
    """Of the edit's texts, by tier, strength and measure: of how many it could be told, and how many there are."""
    found: dict[tuple[str, float, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in measures:
        if row["arm"] == LATENTS and row["measure"] in OTHER_EFFECTS:
            key = (row["tier"], row["strength"], row["measure"])
            n_told, n = found[key]
            found[key] = (n_told + (row["value"] is not None), n + 1)
    return found


def _effect(
    rows: Rows, told: dict[tuple[str, float, str], tuple[int, int]], tier: str, strength: float
) -> dict[str, Any]:
    at = {"tier": tier, "strength": strength}
    own = measured(rows, at, EFFECT)
    for arm, control in own["controls"].items():
        control["share_of_norm"] = _mean_of(rows, arm, at, "share_of_norm")
    fluency = _pick(rows, LATENTS, at, "log_perplexity")
    ratio = None if fluency is None or fluency["above_clean"] is None else float(np.exp(fluency["above_clean"]))
    return at | {
        EFFECT: own.pop("mean"),
        **own,
        "also": {
            name: measured(rows, at, name) | {"n_told": n_told, "n_texts": n}
            for name in OTHER_EFFECTS
            for n_told, n in [told.get((tier, strength, name), (0, 0))]
            if n
        },
        "perplexity_ratio": ratio,
        "empty": _mean_of(rows, LATENTS, at, "empty", "above_clean"),
        "kl_retain": _mean_of(rows, LATENTS, at, "kl_retain"),
        "share_of_norm": _mean_of(rows, LATENTS, at, "share_of_norm"),
    }


def measured(rows: Rows, at: dict[str, Any], measure: str) -> dict[str, Any]:
    """A measure of the edit at a tier and strength, above the clean model's, beside the controls'."""
    own = _pick(rows, LATENTS, at, measure)
    controls = {
        arm: _control(own, [_pick(rows, arm, at | {"draw": draw}, measure) for draw in _draws(rows, arm)])
        for arm in CONTROLS
        # The probe was trained on the texts that this direction is of: it would find what it was made of.
        if _draws(rows, arm) and (arm, measure) != (MEAN_DIFFERENCE, "probe")
    }
    return {"mean": own and own["mean"], **_above(own), "controls": controls}


def _above(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"above_clean": None, "interval": None}
    return {"above_clean": row["above_clean"], "interval": [row["above_low"], row["above_high"]]}


def _mean_of(rows: Rows, arm: str, at: dict[str, Any], measure: str, column: str = "mean") -> float | None:
    """Over the draws of an arm."""
    found = [_pick(rows, arm, at | {"draw": draw}, measure) for draw in _draws(rows, arm)]
    values = [row[column] for row in found if row is not None and row[column] is not None]
    return float(np.mean(values)) if values else None


def _draws(rows: Rows, arm: str) -> list[int]:
    return sorted({row["draw"] for row in rows if row["arm"] == arm})


def _pick(rows: Rows, arm: str, at: dict[str, Any], measure: str) -> dict[str, Any] | None:
    wanted = {"draw": 0, **at, "arm": arm, "measure": measure}
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _control(own: dict[str, Any] | None, draws: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """What a control does, and the interval in which 95 in 100 of its draws lie; an effect outside of it is not theirs
    too."""
    from scipy.stats import t

    values = [row["above_clean"] for row in draws if row is not None and row["above_clean"] is not None]
    n, mean = len(values), float(np.mean(values)) if values else None
    interval = None
    # Draws that are all alike tell nothing of how others would lie.
    if mean is not None and np.ptp(values) > 0:
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
        interval = [mean - half, mean + half]
    effect: float | None = own["above_clean"] if own else None
    outside = None if interval is None or effect is None else not interval[0] <= effect <= interval[1]
    return {"above_clean": mean, "n_draws": n, "interval": interval, "outside": outside}


def _good(cfg: SweepConfig, effect: dict[str, Any]) -> bool:
    """Whether a strength does what it is for, beyond its own interval and all random draws, in texts that are about as
    likely as clean ones and no emptier."""
    ends = effect["interval"]
    if ends is None or None in ends or effect["perplexity_ratio"] is None:
        return False
    down = takes_away(replace(cfg.edit, strength=(effect["strength"],)))
    wanted = ends[1] < 0 if down else ends[0] > 0
    random = [
        effect["controls"][arm]["outside"] for arm in (RANDOM_LATENTS, RANDOM_DIRECTION) if arm in effect["controls"]
    ]
    fluent = effect["perplexity_ratio"] <= MOST_PERPLEXITY and (effect["empty"] or 0.0) <= 0
    return wanted and fluent and bool(random) and all(random)
