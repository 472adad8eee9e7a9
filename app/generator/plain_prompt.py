"""What the Prompt lab asks of the worker, as plain data and back."""

from collections.abc import Generator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autointerp.prompt_findings import Change, Contrasted, Effects, Moved

if TYPE_CHECKING:
    from app.workbench import Workbench


def answer_effects(bench: "Workbench", **asked: Any) -> Generator[dict[str, Any]]:
    """`Workbench.effects`."""
    yield {"kind": "result", "result": plain_effects(bench.effects(**asked))}


def answer_contrast(bench: "Workbench", **asked: Any) -> Generator[dict[str, Any]]:
    """`Workbench.contrast`, which may be stopped between two batches of texts."""
    for step in bench.contrast_steps(**asked):
        if isinstance(step, Contrasted):
            yield {"kind": "result", "result": plain_contrasted(step)}
        else:
            yield {"kind": "progress", "done": step.n_read, "of": step.n_texts}


def plain_effects(found: Effects) -> dict[str, Any]:
    """`Effects` for JSON."""
    return {**asdict(found), "loss_change": found.loss_change.tolist()}


def effects(plain: dict[str, Any]) -> Effects:
    """The `Effects` that went through `plain_effects` and JSON."""
    return Effects(
        **{
            **plain,
            "loss_change": np.array(plain["loss_change"], float),
            "full": _change(plain["full"]),
            "direct": None if plain["direct"] is None else _change(plain["direct"]),
        }
    )


def _change(plain: dict[str, Any]) -> Change:
    return Change(**{**plain, **{side: tuple(Moved(*each) for each in plain[side]) for side in ("up", "down")}})


def plain_contrasted(found: Contrasted) -> dict[str, Any]:
    """A `Contrasted` for JSON."""
    return {
        "rows": found.rows.to_dict("list"),
        "n_texts": found.n_texts,
        "n_tokens": found.n_tokens,
        "n_held": found.n_held,
    }


def contrasted(plain: dict[str, Any]) -> Contrasted:
    """The `Contrasted` that went through `plain_contrasted` and JSON."""
    pairs = {name: (plain[name][0], plain[name][1]) for name in ("n_texts", "n_tokens", "n_held")}
    return Contrasted(rows=pd.DataFrame(plain["rows"]), **pairs)
