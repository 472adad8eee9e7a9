"""Several dictionaries: which are seeds of one setting, and what those say together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.evaluation.comparable import title
from app.evaluation.evaluated import Evaluated
from sae.intervals import seeds_interval
from store.figures import Figure
from store.hashing import content_hash, plain

SEEDS = ("seed", "init_seed", "order_seed")
"""Settings that differ between runs of one setting."""


@dataclass(frozen=True)
class Group:
    """Dictionaries that differ in nothing but their seeds, measured alike."""

    name: str
    members: Sequence[Evaluated]

    def figures(self, part: str) -> list[Figure]:
        """Each figure's mean over the members with an interval over seeds; a single member's own, as they are."""
        each = [{_place(f): f for f in one.measured(part).figures} for one in self.members]
        if len(each) == 1:
            return list(each[0].values())
        return [_over_seeds([found[place] for found in each]) for place in each[0] if all(place in f for f in each)]


def groups(evaluated: Sequence[Evaluated]) -> list[Group]:
    """Dictionaries by their settings without seeds and by what they were measured on, in the order given."""
    found: dict[str, list[Evaluated]] = {}
    for one in evaluated:
        key = content_hash([_seedless(one.sae_run.config), one.sae_run.inputs, one.activations_run.id])
        found.setdefault(key, []).append(one)
    return _told_apart([Group(title(members[0].sae_run, len(members)), members) for members in found.values()])


def _told_apart(groups: list[Group]) -> list[Group]:
    """Groups of one name get what differs between them into it, or their first member's id."""
    named: dict[str, list[Group]] = {}
    for group in groups:
        named.setdefault(group.name, []).append(group)
    settings = {id(g): _flat(_seedless(g.members[0].sae_run.config)) for g in groups}
    out = []
    for group in groups:
        alike = named[group.name]
        own = settings[id(group)]
        differ = [key for key in own if any(settings[id(other)].get(key) != own[key] for other in alike)]
        told = ", ".join(f"{key}={own[key]}" for key in differ[:3]) or group.members[0].sae_run.id[:8]
        out.append(replace(group, name=f"{group.name} {told}") if len(alike) > 1 else group)
    return out


def _flat(config: Any, before: str = "") -> dict[str, Any]:
    if not isinstance(config, Mapping):
        return {before: config}
    return {k: v for key, value in config.items() for k, v in _flat(value, str(key)).items()}


def _seedless(value: Any) -> Any:
    """A config without its seeds."""
    if isinstance(value, Mapping):
        return {key: _seedless(item) for key, item in value.items() if key not in SEEDS}
    return plain(value)


def _place(figure: Figure) -> tuple[str, str, str, str]:
    return figure.metric, figure.token_class, figure.arm, figure.setting


def _over_seeds(figures: Iterable[Figure]) -> Figure:
    figures = list(figures)
    values = [f.value for f in figures if f.value is not None]
    if len(values) < len(figures):
        note = f"withheld: {len(figures) - len(values)} of {len(figures)} seeds have no value"
        return replace(figures[0], value=None, low=None, high=None, note=note)
    interval = seeds_interval(np.array(values))
    low, high = interval if interval else (None, None)
    return replace(
        figures[0], value=float(np.mean(values)), low=low, high=high, note=f"Student's t over {len(values)} seeds"
    )
