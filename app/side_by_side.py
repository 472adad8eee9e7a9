"""What was measured of two dictionaries, figure beside figure, and whether their intervals tell them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app.dictionaries import Dictionary
from app.evaluation.comparable import Difference, unlike
from app.evaluation.evaluated import Evaluated, all_evaluations, evaluations_of
from app.report.glossary import metric
from store.figures import SAE_ARM, Figure, find
from store.run import list_runs

APART = {True: "a below b", False: "a above b"}
OVERLAP = "intervals overlap"
Place = tuple[str, str, str, str]


@dataclass(frozen=True)
class Measurements:
    """Evaluations of two dictionaries."""

    a: Evaluated | None
    b: Evaluated | None
    """None where nothing was measured of it."""
    differences: tuple[Difference, ...] = ()

    @property
    def both(self) -> bool:
        """Whether there is something to lay side by side."""
        return self.a is not None and self.b is not None

    def in_the_way(self, part: str) -> list[Difference]:
        """What keeps figures of a part from being compared."""
        return [one for one in self.differences if one.concerns(part)]

    def unlike_parts(self) -> dict[str, list[Difference]]:
        """Parts measured of both whose figures may not be compared, and why."""
        both = [part for part in self.a.runs if part in self.b.runs] if self.a and self.b else []
        return {part: found for part in both if (found := self.in_the_way(part))}


def measurements(root: Path, a: Dictionary, b: Dictionary) -> Measurements:
    """The evaluations of two dictionaries on the newest harvest that both were measured on, or else on the newest of
    each; a step of a training is not evaluated."""
    found_a, found_b = ([] if one.step is not None else evaluations_of(root, one.run) for one in (a, b))
    shared = {one.activations_run.id for one in found_a} & {one.activations_run.id for one in found_b}
    kept = [[e for e in found if e.activations_run.id in shared] or found for found in (found_a, found_b)]
    if shared:
        newest = kept[1][-1].activations_run.id
        kept = [[e for e in found if e.activations_run.id == newest] for found in kept]
    one, two = (found[-1] if found else None for found in kept)
    return Measurements(one, two, tuple(unlike([one, two])) if one and two else ())


def figures_table(found: Measurements, *, controls: bool = False) -> pd.DataFrame:
    """A row a figure: `part metric class setting arm a a_interval b b_interval told`, values as they are read.

    `told` says which is lower where both 95 % intervals lie apart; it is empty where there is no interval or where
    the measurements are not alike. Figures without a value on both sides are left out.

    Args:
        found: the evaluations.
        controls: whether figures of controls and baselines stand in the table too.
    """
    rows = []
    for part in dict.fromkeys([*(found.a.runs if found.a else ()), *(found.b.runs if found.b else ())]):
        own, other = (_by_place(one, part) for one in (found.a, found.b))
        alike = not found.in_the_way(part)
        for place in dict.fromkeys([*own, *other]):
            if place[3] == SAE_ARM or controls:
                rows.append(_row(part, place, own.get(place), other.get(place), alike))
    return pd.DataFrame([row for row in rows if row["a"] or row["b"]], columns=list(COLUMNS))


COLUMNS = ("part", "metric", "class", "setting", "arm", "a", "a_interval", "b", "b_interval", "told", "n")


def _by_place(one: Evaluated | None, part: str) -> dict[Place, Figure]:
    figures = one.measured(part).figures if one else ()
    return {(f.metric, f.token_class, f.setting, f.arm): f for f in figures}


def _row(part: str, place: Place, a: Figure | None, b: Figure | None, alike: bool) -> dict[str, Any]:
    name, token_class, setting, arm = place
    ns = dict.fromkeys(f"{f.n:,} {f.n_of}" for f in (a, b) if f is not None)
    return {
        "part": part,
        "metric": metric(name).label,
        "class": token_class.replace("_", " "),
        "setting": setting,
        "arm": "" if arm == SAE_ARM else arm.replace("_", " "),
        "a": value_text(a),
        "a_interval": interval_text(a),
        "b": value_text(b),
        "b_interval": interval_text(b),
        "told": verdict(a, b) if alike else "",
        "n": ", ".join(ns),
    }


def verdict(a: Figure | None, b: Figure | None) -> str:
    """Which is lower, where both have 95 % intervals and these lie apart. Intervals that overlap do not say that there
    is no difference."""
    if a is None or b is None or a.low is None or a.high is None or b.low is None or b.high is None:
        return ""
    if a.low == a.high == b.low == b.high:
        return "equal"
    if a.high < b.low or b.high < a.low:
        return APART[a.high < b.low]
    return OVERLAP


def value_text(figure: Figure | None) -> str:
    """A value as people read it; empty where there is none."""
    return "" if figure is None or figure.value is None else _number(figure.value, figure)


def interval_text(figure: Figure | None) -> str:
    """Its 95 % interval; empty where there is none."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{_number(figure.low, figure)} to {_number(figure.high, figure)}"


def _number(value: float, figure: Figure) -> str:
    if metric(figure.metric).percent:
        return f"{value:.1%}"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


@dataclass(frozen=True)
class Point:
    """One dictionary among others in a plot of what is paid for what."""

    ref: str
    title: str
    variant: str
    x: Figure
    y: Figure


@dataclass(frozen=True)
class Trade:
    """Dictionaries with both figures, and how many had to be left out."""

    points: Sequence[Point]
    n_unlike: int
    """Measured on other text, on other token classes or in other settings."""
    n_unmeasured: int


def trade(root: Path, reference: Evaluated, across: tuple[str, str, Mapping[str, str]], up: Any) -> Trade:
    """All dictionaries of the reference's hook point, measured as it was.

    Args:
        root: of all runs.
        reference: whose measurement sets what the others' must be like.
        across: the part, metric and fields of the figure on the x-axis.
        up: the same of the y-axis.
    """
    points, n_unlike, n_unmeasured = [], 0, 0
    places, measured = Dictionary(reference.sae_run).places, all_evaluations(root)
    for one in (Dictionary(run) for run in list_runs(root, "sae")):
        if one.places != places:
            continue
        each = measured.get(one.run.id, [])
        alike = [e for e in each if not _in_the_way([reference, e], (across[0], up[0]))]
        chosen = [(find_in(e, across), find_in(e, up)) for e in alike]
        pair = next(((x, y) for x, y in reversed(chosen) if x and y), None)
        if pair is not None:
            points.append(Point(one.ref, one.title, one.run.config.get("variant", "sae"), *pair))
        elif each and not alike:
            n_unlike += 1
        else:
            n_unmeasured += 1
    return Trade(points, n_unlike, n_unmeasured)


def _in_the_way(two: Sequence[Evaluated], parts: Sequence[str]) -> bool:
    return any(difference.concerns(part) for difference in unlike(two) for part in parts)


def find_in(one: Evaluated, what: tuple[str, str, Mapping[str, str]]) -> Figure | None:
    """A figure of an evaluation that has a value."""
    part, name, where = what
    found = find(one.measured(part).figures, name, **where)
    return None if found is None or found.value is None else found
