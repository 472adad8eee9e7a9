"""The form of every result file: machine, versions, commit, and figures that say whether they hold."""

import json
import operator
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from store.run import provenance

RESULTS = Path(__file__).parent / "results"
COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True)
class Figure:
    """One number, and what it was meant to reach."""

    name: str
    value: float
    unit: str
    reach: str | None = None
    """Such as `<= 1.4`; None for a number that is only reported."""

    @property
    def holds(self) -> bool | None:
        """Whether the value reaches it; None where nothing is asked."""
        if self.reach is None:
            return None
        sign, bound = self.reach.split()
        return COMPARE[sign](self.value, float(bound))


def write(name: str, figures: list[Figure], **settings: Any) -> bool:
    """Print the figures and write `bench/results/NAME.json`; whether all of them hold."""
    made_by = provenance()
    document = {
        "machine": made_by["machine"],
        "load_before": os.getloadavg()[2],
        "versions": {"python": made_by["python"], **made_by["packages"]},
        "commit": made_by["commit"],
        "settings": settings,
        "figures": [asdict(figure) | {"holds": figure.holds} for figure in figures],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for figure in figures:
        verdict = {None: "", True: f"holds {figure.reach}", False: f"MISSES {figure.reach}"}[figure.holds]
        print(f"{figure.name:48} {figure.value:10.4g} {figure.unit:8} {verdict}")
    return all(figure.holds is not False for figure in figures)
