"""When a figure is shown: below a stated count it is withheld, and where documents are few it has no interval."""

from sae.intervals import FEWEST_GROUPS, Interval
from sae.probe_scores import Told
from store.figures import SAE_ARM, Figure

FEWEST = 100
"""Rows, tokens or texts below which a figure over them says nothing stable."""
NO_INTERVAL = "no interval: it is not made for this figure, or resampling documents left nothing to divide by"


def of_groups(told: Told, n_texts: int, n_groups: int) -> str:
    """What a figure over labelled texts rests on; never that it has an interval where it has none."""
    note = f"; few texts: {n_texts}, fewer than {FEWEST}" if n_texts < FEWEST else ""
    if told.value is None:
        return f"not defined on these texts{note}"
    if told.low is not None:
        return f"bootstrap over {n_groups} groups{note}"
    if n_groups < FEWEST_GROUPS:
        return f"no interval: {n_groups} groups, fewer than {FEWEST_GROUPS}{note}"
    return f"no interval: too many resamples of the groups lack a class{note}"


def figure(
    metric: str,
    value: float | None,
    interval: Interval | None,
    *,
    n: int,
    n_of: str,
    n_documents: int,
    token_class: str = "",
    arm: str = SAE_ARM,
    setting: str = "",
) -> Figure:
    """A figure over rows of some documents, withheld where they are too few."""
    note = f"bootstrap over {n_documents:,} documents" if interval else ""
    if n < FEWEST:
        value, interval, note = None, None, f"withheld: {n} {n_of}, fewer than {FEWEST}"
    elif value is None:
        note = "not defined on these rows"
    elif interval is None:
        few = n_documents < FEWEST_GROUPS
        note = f"no interval: {n_documents} documents, fewer than {FEWEST_GROUPS}" if few else NO_INTERVAL
    return Figure(
        metric=metric,
        value=value,
        n=n,
        n_of=n_of,
        token_class=token_class,
        arm=arm,
        setting=setting,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        note=note,
    )
