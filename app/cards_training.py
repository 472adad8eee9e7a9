"""Cards of trainings: which line is which, how far each is, and tables of what they were and came to."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from app.cards import escape, number
from app.palette import COLOURS, DASHES
from app.trainings import Headway, Trained

BORDERS = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "dashed", "longdash": "dashed"}
"""CSS's nearest to a line's dash."""
SHOWN_SETTINGS = ("k", "target_l0", "l1_coefficient", "levels")
MINUTE, HOUR, DAY = 60, 3600, 86400


def key_html(titles: Sequence[str]) -> str:
    """Which colour and dash is which training, in the order of the curves."""
    return "".join(
        f'<span style="white-space:nowrap;margin-right:1.2em">{_swatch(n)}{escape(title)}</span> '
        for n, title in enumerate(titles)
    )


def _swatch(n: int) -> str:
    border = BORDERS[DASHES[n // len(COLOURS) % len(DASHES)]]
    return (
        f'<span style="display:inline-block;width:1.8em;border-top:3px {border} {COLOURS[n % len(COLOURS)]};'
        'vertical-align:middle;margin-right:.4em"></span>'
    )


def headway_line(found: Headway, now: float) -> str:
    """How far, how fast, how long it will take, and when the last step was logged; what is not known is left out."""
    of = f" of {found.n_steps:,}" if found.n_steps else ""
    parts = [f"step {found.step:,}{of}"]
    if found.steps_per_s:
        parts.append(f"{number(found.steps_per_s)} steps/s over its last minute")
    if found.eta_s is not None:
        parts.append(f"about {duration(found.eta_s)} of training left")
    if found.last_at is not None:
        parts.append(f"last logged step {duration(max(now - found.last_at, 0))} ago")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """A time as people say it, in its two largest units."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min {int(seconds % MINUTE):02d} s"
    if seconds < DAY:
        return f"{int(seconds // HOUR)} h {int(seconds % HOUR // MINUTE):02d} min"
    return f"{int(seconds // DAY)} d {int(seconds % DAY // HOUR):02d} h"


def trainings_table(found: Sequence[Trained], last: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row a training, newest first: what was asked for and what it came to.

    Args:
        found: the trainings.
        last: the last line of each one's log, by id, where it has one.
    """
    return pd.DataFrame([_row(one, last.get(one.run.id, {})) for one in reversed(found)])


def _row(one: Trained, last: Mapping[str, Any]) -> dict[str, Any]:
    config, results = one.run.config, one.run.results
    sae, train = config.get("sae", {}), config.get("train", {})
    sparsity = ", ".join(f"{key}={sae[key]}" for key in SHOWN_SETTINGS if sae.get(key))
    return {
        "run": one.run.id,
        "state": one.state,
        "variant": config.get("variant"),
        "d_sae": results.get("d_sae") or sae.get("d_sae"),
        "sparsity": sparsity or None,
        "heldout_fvu": results.get("heldout_fvu"),
        "heldout_l0": results.get("heldout_l0"),
        "fvu": last.get("fvu"),
        "n_dead": last.get("n_dead"),
        "step": last.get("step"),
        "n_steps": one.n_steps,
        "lr": train.get("lr"),
        "batch_size": config.get("batch_size"),
        "seed": train.get("seed", config.get("seed")),
        "hook_point": config.get("hook_point"),
        "harvest": ", ".join(one.run.inputs.values()),
        "seconds": one.run.manifest.get("seconds"),
        "finished_at": one.run.manifest.get("finished_at"),
    }
