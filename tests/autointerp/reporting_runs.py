"""Runs of explanations and scores with made-up answers, whose every number can be recounted."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autointerp.latent import ACTIVE, Explanation, Judged, Trial, Unexplained
from autointerp.rows import (
    Rows,
    cluster_rows,
    columns,
    example_rows,
    explanation_row,
    metric_rows,
    score_row,
    unexplained_row,
)
from autointerp.statistics import scored
from store.index import publish, write_part
from store.index_tables import SCHEMAS
from store.latents import Window
from store.run import Run, start_run

ARMS = ("explanation", "shuffled", "generic")
VALUES = {"detection": ("balanced_accuracy", 0.5), "simulation": ("correlation", 0.0), "embedding": ("auroc", 0.5)}
"""Metric and chance by scorer."""


def chance_of(scorer: str, latent: int) -> float:
    """That of one latent: line-ups differ in length."""
    return 1 / (2 + latent) if scorer == "embedding" else VALUES[scorer][1]


def explanations(
    index: Run,
    texts: Mapping[int, str],
    unexplained: Sequence[int] = (),
    quoted: Mapping[int, float] | None = None,
    explainer: str = "default",
    clusters: Sequence[Sequence[int]] = (),
) -> Run:
    """A finished run of explanations of an index, not yet published; the first of each cluster is its medoid."""
    shares = quoted or {}
    config = {"explainer": explainer, **({"clusters": clusters} if clusters else {})}
    with start_run(index.root, "explanations", config, {"index": index.id}) as run:
        said = [
            Explanation(latent, explainer, text, text, "made up", 3, frozenset({0}), quoted=shares.get(latent, 0.0))
            for latent, text in texts.items()
        ]
        silent = [Unexplained(latent, explainer, "no evidence") for latent in unexplained]
        _write(run.folder, {"explanations": [explanation_row(each, run.id) for each in said]})
        _write(run.folder, {"unexplained": [unexplained_row(each, run.id) for each in silent]})
        together = [row for each in clusters for row in cluster_rows(each, each[0], 0.9, run.id)]
        _write(run.folder, {"clusters": together})
        run.finish({"n_explained": len(said)})
    return run


def scores(of: Run, scorer: str, latents: Sequence[int], *, seed: int, n: int = 12, text: str = "") -> Run:
    """A finished and published run of scores, of answers drawn at random; the last latent's could not be read."""
    index = of.inputs["index"]
    with start_run(of.root, "scores", {"scorer": scorer, "seed": seed}, {"explanations": of.id, "index": index}) as run:
        random = np.random.default_rng(seed)
        rows: dict[str, Rows] = {"scores": [], "score_metrics": [], "examples": []}
        for latent in latents:
            for arm in ARMS:
                found = _answers(scorer, random, n, text, none=latent == latents[-1])
                score = scored(found, value=VALUES[scorer][0], chance=chance_of(scorer, latent), seed=seed)
                explanation = Explanation(latent, "default", "", "", "made up", 3, frozenset())
                row = score_row(scorer, arm, explanation, Trial(latent, ()), score, run.id)
                rows["scores"].append(row)
                rows["score_metrics"] += metric_rows(row, score)
                rows["examples"] += example_rows(row, score)
        _write(run.folder, rows)
        run.finish({})
    return run


def _answers(scorer: str, random: np.random.Generator, n: int, text: str, *, none: bool) -> list[Judged]:
    return [_answer(scorer, random, i, text, none) for i in range(n)]


def _answer(scorer: str, random: np.random.Generator, i: int, text: str, none: bool) -> Judged:
    kind, unread = (ACTIVE, "random")[i % 2], none or random.random() < 0.2
    said = {
        "detection": float(random.integers(0, 2)),
        "simulation": float(random.integers(0, 10)),
        "embedding": float(random.random()),
    }[scorer]
    truth = float(random.random() * 9) * (1 - i % 2) if scorer == "simulation" else float(1 - i % 2)
    window = Window("given", 1.0, i, "s", "t", "train", 0, 0, 0, (text or f"context {i}",), (0,), (1.0,))
    return Judged(
        kind=kind,
        window=window,
        truth=truth,
        answer=None if unread else said,
        probability=float(random.random()) if scorer == "detection" and not unread else None,
        n_asked=2 if unread else 1,
        token=0 if scorer == "simulation" else None,
    )


def published(index: Run) -> Run:
    """The index, with everything there is."""
    publish(index)
    return index


def _write(folder: Path, tables: Mapping[str, Rows]) -> None:
    for table, rows in tables.items():
        if rows:
            write_part(folder, table, columns(rows, SCHEMAS[table].names), 0)
