"""What the small workbench lacks, added to one: neighbours, effects on logits, a plane, judgements, a matching."""

from pathlib import Path
from typing import Any

import numpy as np

from store.index import publish, write_part
from store.index_tables import SCHEMAS
from store.matching import write_table
from store.matching_tables import SCHEMAS as MATCHING
from store.run import Run, find_run, start_run

ELSEWHERE = "0123456789abcdef"
"""An index that is not there."""
OTHER, CHILD = 17, 21
"""Latents of that index: the partner, and one of two children."""
EVIL_REPLY = "<img src=x onerror='window.pwned=1'> **no**"


def enrich(root: Path, index: Run, d_sae: int, judged: int) -> None:
    """Add all of it to the index run under `root`; `judged` is the latent with judgements and relatives."""
    _directions(index, d_sae)
    _judgements(root, index, judged)
    with start_run(root, "plane", {"made": "by hand"}, {"index": index.id}) as run:
        each = np.arange(d_sae)
        write_part(run.folder, "plane", {"latent": each, "x": each.astype(float), "y": -each.astype(float)})
        run.finish({})
    _matching(root, index, judged)
    publish(index)


def _directions(index: Run, d_sae: int) -> None:
    each = np.arange(d_sae)
    rows = [(latent, side, 0, (latent + step) % d_sae, 0.5) for latent in each for step, side in enumerate(SIDES, 1)]
    columns = dict(zip(("latent", "side", "rank", "other", "cosine"), zip(*rows, strict=True), strict=True))
    write_part(index.folder, "neighbours", {name: list(values) for name, values in columns.items()})
    figures = dict.fromkeys(("std", "skewness", "kurtosis"), np.full(d_sae, 3.0))
    bounds = {"low": np.full(d_sae, -2.0), "high": np.full(d_sae, 2.0)}
    histogram = {"histogram": [[1, 5, 20, 5, 1]] * d_sae}
    write_part(index.folder, "logit_effects", {"latent": each, **figures, **bounds, **histogram})


SIDES = ("decoder", "encoder")


def _judgements(root: Path, index: Run, latent: int) -> None:
    scores = find_run(root, "latest", "scores")
    same = {"latent": latent, "explainer": "tokens", "scorer": "detection", "call": "reply-1", "n_asked": 1}
    examples = [
        same | {"arm": "explanation", "number": 0, "kind": "active", "text": "a <b>boat</b>", "truth": 1, "answer": 1},
        same | {"arm": "explanation", "number": 1, "kind": "random", "text": "a list", "truth": 0, "answer": 1},
        same | {"arm": "explanation", "number": 2, "kind": "random", "text": "a tree", "truth": 0, "answer": None},
        same | {"arm": "shuffled", "number": 0, "kind": "active", "text": "a boat", "truth": 1, "answer": 0},
    ]
    calls = [
        {"key": "reply-1", "model": "scripted", "prompt": "p v1", "request": "Does it fire?", "reply": EVIL_REPLY},
    ]
    with start_run(root, "scores", {"made": "by hand, with examples"}, scores.inputs) as run:
        for table, rows in (("examples", examples), ("calls", calls)):
            _write(run, table, rows)
        _write(run, "scores", [])
        run.finish({})


def _write(run: Run, table: str, rows: list[dict[str, Any]]) -> None:
    names = [name for name in SCHEMAS[table].names if name != "run"]
    columns = {name: [row.get(name) for row in rows] for name in names}
    number = 0 if table in ("examples", "calls") else None
    write_part(run.folder, table, {**columns, "run": [run.id] * len(rows)}, number)


def _matching(root: Path, index: Run, latent: int) -> None:
    child = {"side": "a", "parent": latent, "share": 0.4, "implies": 0.9, "parent_silent": 0.1, "decoder": 0.6}
    tables = {
        "best": [
            {"side": "a", "latent": latent, "measure": "decoder", "other": OTHER, "value": 0.8, "mutual": True},
            {"side": "b", "latent": latent, "measure": "decoder", "other": 1, "value": 0.1, "mutual": False},
        ],
        "thresholds": [{"measure": "decoder", "against": "random", "threshold": 0.3, "n": 10}],
        "families": [{"side": "a", "parent": latent, "n_children": 2, "coverage": 0.8, "largest": 0.4}],
        "children": [child | {"latent": CHILD, "role": "child"}, child | {"latent": 22, "role": "absorbs"}],
    }
    with start_run(root, "matching", {"made": "by hand"}, {"a": index.id, "b": ELSEWHERE}) as run:
        for table, schema in MATCHING.items():
            rows = tables.get(table, [])
            write_table(run.folder, table, {name: [row.get(name) for row in rows] for name in schema.names})
        run.finish({})
