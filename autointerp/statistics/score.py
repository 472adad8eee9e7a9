"""From a scorer's answers to its `Score`: the value, how sure it is, and between what the unread answers leave it."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from autointerp.latent import Judged, Score
from autointerp.statistics.intervals import (
    CLOSED,
    Interval,
    bootstrapped,
    precision_at_base_rate,
    precision_interval,
)
from autointerp.statistics.metrics import BY_PROBABILITY, METRICS, Answers, is_binary

RANDOM = "random"
"""Kind of the silent items that stand for the corpus; the others were chosen to be hard."""


def scored(
    examples: Sequence[Judged],
    *,
    value: str,
    chance: float,
    base_rate: float | None = None,
    prompt: str = "",
    seed: int = 0,
    beside: Collection[str] | None = None,
) -> Score:
    """The score of `examples` by the metric `value`, with every other metric that applies beside it.

    Positions in a line-up look like numbers: `beside` names the only metrics that mean something of such answers.

    Answers that could not be read are left out of the value and its interval, and counted; `bounds` says what the value
    would be were they all wrong, and all right, on the scale of those that could be read, and holds the value. With a
    `base_rate`, `metrics` has `precision_at_base_rate` and its ends `_low` and `_high`: its false-positive rate is that
    of random silent items alone. Figures of probabilities are of the answers that have one, where any has.

    Raises:
        ValueError: there is no metric of that name.
    """
    if value not in METRICS:
        raise ValueError(f"no metric '{value}': choose one of {', '.join(METRICS)}")
    read = [example for example in examples if example.answer is not None]
    n_unparsed = len(examples) - len(read)
    given = {name: answers(_with_what_it_needs(name, read)) for name in METRICS}
    wanted = METRICS if beside is None else {value, *beside}
    found = {
        name: metric(given[name]) for name, metric in METRICS.items() if name in wanted and metric.applies(given[name])
    }
    return Score(
        found.get(value),
        None if found.get(value) is None else interval(value, given[value], seed),
        chance,
        n_judged=len(read),
        n_unparsed=n_unparsed,
        bounds=_bounds(value, examples, found.get(value)) if n_unparsed else None,
        metrics={**found, **({} if base_rate is None else at_base_rate(read, base_rate))},
        examples=tuple(examples),
        prompt=prompt,
    )


def answers(read: Sequence[Judged]) -> Answers:
    """As arrays; probabilities where every example has one."""
    probability = [example.probability for example in read]
    given = all(each is not None for each in probability)
    return Answers(
        np.array([example.truth for example in read], float),
        np.array([example.answer for example in read], float),
        np.array(probability, float) if given and probability else None,
    )


def _with_what_it_needs(name: str, read: Sequence[Judged]) -> Sequence[Judged]:
    """A judge that left out one probability has still ranked the others by theirs, and never a yes above a maybe."""
    if name not in BY_PROBABILITY:
        return read
    return [example for example in read if example.probability is not None] or read


def interval(name: str, given: Answers, seed: int = 0) -> Interval | None:
    """95% over the questions of the metric `name`; None where there is none."""
    return CLOSED[name](given) if name in CLOSED else bootstrapped(METRICS[name], given, seed)


def minus(score: Score, null: Score) -> tuple[float, Interval] | None:
    """One latent's score less its null, with the interval that follows from theirs; None where one has none.

    Distances to the ends of both intervals, added as squares: Zou & Donner 2008. Both are judged on the same contexts,
    which can only bring them nearer to each other than that. Over many latents, `compare` is the one to use.
    """
    if score.value is None or null.value is None or score.interval is None or null.interval is None:
        return None
    difference = score.value - null.value
    below = np.hypot(score.value - score.interval[0], null.interval[1] - null.value)
    above = np.hypot(score.interval[1] - score.value, null.value - null.interval[0])
    return difference, (float(difference - below), float(difference + above))


def at_base_rate(read: Sequence[Judged], base_rate: float) -> Mapping[str, float | None]:
    """Precision where the latent fires in `base_rate` of all windows, and its 95% ends.

    Nothing where the answers are not yes or no, or one of the two rates has no example.
    """
    yes = [example.answer for example in read if example.truth == 1]
    no = [example.answer for example in read if example.truth == 0 and example.kind == RANDOM]
    if not yes or not no or not is_binary(np.array([*yes, *no], float)):
        return {}
    hits, alarms = int(sum(map(bool, yes))), int(sum(map(bool, no)))
    low, high = precision_interval((hits, len(yes)), (alarms, len(no)), base_rate)
    value = precision_at_base_rate(hits / len(yes), alarms / len(no), base_rate)
    return {
        "precision_at_base_rate": value,
        "precision_at_base_rate_low": low,
        "precision_at_base_rate_high": high,
    }


def _bounds(name: str, examples: Sequence[Judged], value: float | None) -> Interval | None:
    read = _with_what_it_needs(name, [example for example in examples if example.answer is not None])
    examples = [*read, *(example for example in examples if example.answer is None)]
    worst, best = (METRICS[name](_filled(name, examples, right)) for right in (False, True))
    if worst is None or best is None:
        return None
    # All right may be less than the value, where the readable answers have a trend of their own.
    held = [each for each in (worst, best, value) if each is not None]
    return min(held), max(held)


def _filled(value: str, examples: Sequence[Judged], right: bool) -> Answers:
    """`examples` with every unread answer what it should be, or as far from that as answers go."""
    truth = np.array([example.truth for example in examples], float)
    said = np.array([np.nan if example.answer is None else example.answer for example in examples])
    believed = np.array([np.nan if example.probability is None else example.probability for example in examples])
    read = ~np.isnan(said)
    whole = is_binary(truth) and is_binary(said[read])
    filled = np.where(read, said, EXTREMES.get(value, _extremes)(truth, said[read], right))
    probable = whole and read.any() and not np.isnan(believed[read]).any()
    if not probable:
        return Answers(truth, filled)
    return Answers(truth, filled, np.where(read, believed, truth if right else 1 - truth))


def _extremes(truth: np.ndarray, said: np.ndarray, right: bool) -> np.ndarray:
    if is_binary(truth) and is_binary(said):
        return truth if right else 1 - truth
    if not is_binary(truth):
        return _on_scale_of(said, truth if right else truth.max() + truth.min() - truth)
    low, high = said.min() - 1, said.max() + 1
    return np.where((truth == 1) == right, high, low)


def _on_scale_of(said: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values, such as activations, as a judge says them: its lowest and highest answers for the least and the most."""
    if not said.size or said.max() == said.min():
        return values
    spread = np.ptp(values)
    share = (values - values.min()) / spread if spread else np.full_like(values, 0.5)
    return said.min() + share * (said.max() - said.min())


def _named(truth: np.ndarray, said: np.ndarray, right: bool) -> np.ndarray:
    """Answers that are one of several, of which nothing is larger than another: the true one, or any that is not."""
    del said
    return truth if right else 1 - truth


EXTREMES = {"accuracy": _named}
"""Of metrics that compare names; the others compare sizes."""
