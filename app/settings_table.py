"""Settings of several runs side by side."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from store.run import Run

MISSING = "–"


def settings(run: Run) -> dict[str, str]:
    """What was asked for, by dotted name, and the runs that it was made from."""
    return _flat(run.config) | {f"made from {kind}": id_ for kind, id_ in run.inputs.items()}


def differing(runs: Mapping[str, Run]) -> pd.DataFrame:
    """A row a setting that is not the same in all runs, a column a run under its title; `–` where one has none."""
    each = {title: settings(run) for title, run in runs.items()}
    names = dict.fromkeys(name for found in each.values() for name in found)
    rows = {name: [found.get(name, MISSING) for found in each.values()] for name in names}
    kept = {name: values for name, values in rows.items() if len(set(values)) > 1}
    frame = pd.DataFrame.from_dict(kept, orient="index", columns=list(each))
    return frame.rename_axis("setting").reset_index()


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{name}.{key}".lstrip(".")).items()}
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)}
