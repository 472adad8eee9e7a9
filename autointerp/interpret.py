"""The two jobs: explain some latents, and score those explanations next to a shuffled null."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activations.progress import Progress, no_progress
from autointerp.explain import EXPLAINERS
from autointerp.latent import Explanation, Score, Trial
from autointerp.sample import SampleConfig, Sampler
from autointerp.scorers import SCORERS
from autointerp.tools import Tools, ToolsConfig
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import publish, write_part
from store.index_tables import SCHEMAS
from store.run import Run, find_run, start_run


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Which latents to explain, and how."""

    explainer: str = "tokens"
    """A name in `EXPLAINERS`."""
    n_latents: int = 30
    """Drawn at random from the latents with enough contexts."""
    latents: tuple[int, ...] = ()
    """These latents instead of a draw."""
    sample: SampleConfig = field(default_factory=SampleConfig)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """How to score explanations."""

    scorer: str = "embedding"
    """A name in `SCORERS`."""
    embedder: str = "minilm"
    """A name in `EMBEDDERS`."""
    seed: int = 0
    """Of the shuffled null."""


def explain(cfg: ExplainConfig, index_run: Run, root: Path, progress: Progress = no_progress) -> Run:
    """Explain latents into `root/explanations/<hash>` and publish them, or return what is already there.

    Raises:
        UsageError: unknown explainer, no latent with enough contexts, or a latent without any.
    """
    _known(cfg.explainer, EXPLAINERS, "explainer")
    with start_run(root, "explanations", cfg, {"index": index_run.id}) as run:
        if not run.finished:
            sampler = Sampler(FeatureIndex(index_run.folder), cfg.sample)
            latents = list(dict.fromkeys(cfg.latents)) or sampler.choose(cfg.n_latents)
            explanations = asyncio.run(_explain_all(cfg, sampler, latents, progress))
            write_part(run.folder, "explanations", explanation_columns(explanations, run.id))
            seen = sorted(set().union(*(explanation.doc_ids or () for explanation in explanations)))
            run.finish({"n_explained": len(explanations), "explain_docs": seen})
        publish(index_run)
        return run


async def _explain_all(
    cfg: ExplainConfig, sampler: Sampler, latents: list[int], progress: Progress
) -> list[Explanation]:
    explainer = EXPLAINERS[cfg.explainer](Tools(sampler=sampler))
    explanations: list[Explanation] = []
    for latent in progress(latents, len(latents), f"explain with {cfg.explainer}"):
        evidence = sampler.evidence(latent)
        if not evidence.windows:
            raise UsageError(
                f"latent {latent} has no context to explain from: choose one that fires, or leave --latents out"
            )
        explanations.append(await explainer(evidence))
    return explanations


def explanation_columns(explanations: list[Explanation], run_id: str) -> dict[str, list[Any]]:
    """As the table `explanations` has them."""
    return {
        "latent": [explanation.latent for explanation in explanations],
        "explainer": [explanation.explainer for explanation in explanations],
        "text": [explanation.text for explanation in explanations],
        "input_text": [explanation.input_text for explanation in explanations],
        "method": [explanation.method for explanation in explanations],
        "n_contexts": [explanation.n_contexts for explanation in explanations],
        "n_docs": [None if seen is None else len(seen) for seen in (each.doc_ids for each in explanations)],
        "run": [run_id] * len(explanations),
    }


def score(cfg: ScoreConfig, explanations_run: Run, root: Path, progress: Progress = no_progress) -> Run:
    """Score explanations into `root/scores/<hash>` and publish them, or return what is already there.

    Every explanation is scored on its latent's trial, and so is the explanation of another latent (a derangement): the
    difference is what the explanation knows of this latent in particular.

    Raises:
        UsageError: unknown scorer or embedder, or a trial that shares a document with what the explainer saw.
    """
    _known(cfg.scorer, SCORERS, "scorer")
    index_run = find_run(root, explanations_run.inputs["index"], "index")
    inputs = {"explanations": explanations_run.id, "index": index_run.id}
    with start_run(root, "scores", cfg, inputs) as run:
        if not run.finished:
            index = FeatureIndex(index_run.folder)
            sample = explanations_run.config["sample"]
            sampler = Sampler(index, SampleConfig(**sample))
            explanations = _read_explanations(index, explanations_run)
            columns = asyncio.run(_score_all(cfg, sampler, explanations, run.id, progress))
            write_part(run.folder, "scores", columns)
            run.finish(_summary(columns))
        publish(index_run)
        return run


def _read_explanations(index: FeatureIndex, run: Run) -> list[Explanation]:
    rows = index.arrow("SELECT * FROM explanations WHERE run = ? ORDER BY latent", [run.id]).to_pylist()
    known = run.results["explain_docs"]
    seen = None if known is None else frozenset(known)
    return [
        Explanation(
            latent=row["latent"],
            explainer=row["explainer"],
            text=row["text"],
            input_text=row["input_text"],
            method=row["method"],
            n_contexts=row["n_contexts"],
            doc_ids=seen,
        )
        for row in rows
    ]


async def _score_all(
    cfg: ScoreConfig, sampler: Sampler, explanations: list[Explanation], run_id: str, progress: Progress
) -> dict[str, list[Any]]:
    scorer = SCORERS[cfg.scorer](Tools(ToolsConfig(embedder=cfg.embedder), sampler=sampler))
    others = derangement(len(explanations), cfg.seed)
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMAS["scores"].names}
    jobs = list(zip(explanations, others, strict=True))
    for explanation, other in progress(jobs, len(jobs), f"score with {cfg.scorer}"):
        trial = sampler.trial(explanation.latent)
        _refuse_overlap(explanation, trial)
        arms = {"explanation": explanation} | ({} if other is None else {"shuffled": explanations[other]})
        for arm, text in arms.items():
            found = await scorer(text, trial)
            row = _row(cfg, explanation, trial, arm, found, run_id)
            for name, value in row.items():
                columns[name].append(value)
    return columns


def _row(
    cfg: ScoreConfig, explanation: Explanation, trial: Trial, arm: str, found: Score, run_id: str
) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {
        "latent": explanation.latent,
        "explainer": explanation.explainer,
        "scorer": cfg.scorer,
        "arm": arm,
        "value": found.value,
        "ci_low": low,
        "ci_high": high,
        "chance": found.chance,
        "n_judged": found.n_judged,
        "n_unparsed": found.n_unparsed,
        "n_docs": len(trial.doc_ids),
        "n_docs_shared": None if explanation.doc_ids is None else len(trial.doc_ids & explanation.doc_ids),
        "run": run_id,
    }


def _refuse_overlap(explanation: Explanation, trial: Trial) -> None:
    shared = trial.doc_ids & (explanation.doc_ids or frozenset())
    if shared:
        raise UsageError(
            f"latent {explanation.latent}: {len(shared)} scoring documents were shown to the explainer, so the score "
            "would be of memory, not of meaning: explain and score with the same sample seed"
        )


def derangement(n: int, seed: int) -> list[int | None]:
    """A seeded permutation without a fixed point (Sattolo 1986: one cycle); None when n < 2, where there is none."""
    if n < 2:
        return [None] * n
    random = np.random.default_rng(seed)
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = int(random.integers(0, i))
        order[i], order[j] = order[j], order[i]
    return list(order)


def _summary(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Means over latents of both arms, with the counts that say what the means are over."""
    arms = np.array(columns["arm"])
    value = np.array([np.nan if v is None else v for v in columns["value"]], float)
    summary: dict[str, Any] = {}
    for arm in ("explanation", "shuffled"):
        scored = value[(arms == arm) & ~np.isnan(value)]
        summary[arm] = {
            "mean": float(scored.mean()) if len(scored) else None,
            "standard_error": float(scored.std(ddof=1) / np.sqrt(len(scored))) if len(scored) > 1 else None,
            "n_scored": len(scored),
            "n_not_scored": int((arms == arm).sum() - len(scored)),
        }
    return summary


def _known(name: str, table: dict[str, Any], what: str) -> None:
    if name not in table:
        raise UsageError(f"no {what} '{name}': choose one of {', '.join(table)}")
