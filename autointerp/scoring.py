"""The job that scores explanations, next to nulls."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from activations.progress import Progress, no_progress
from autointerp.arms import ARMS, EXPLANATION, NULLS, RANDOM, SHUFFLED, Known, derangement
from autointerp.chunks import Stage, work_through
from autointerp.explained import Explanations
from autointerp.explaining import ExplainConfig, explain, explanations_of, known, sample_of
from autointerp.latent import Explanation, Score, Trial
from autointerp.llm.config import LLMConfig
from autointerp.rows import Rows, example_rows, metric_rows, score_row
from autointerp.sample import NotAllKept, SampleConfig, Sampler
from autointerp.scorers import SCORERS, Scorer
from autointerp.summary import summary
from autointerp.tools import Tools, ToolsConfig
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import parts_of, publish
from store.run import Run, find_run, start_run

log = logging.getLogger(__name__)

TABLES = ("score_metrics", "examples", "scores")
"""That the job writes, for each chunk in this order."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """How to score explanations."""

    scorer: str = "embedding"
    """Who judges: detection, discrimination, embedding, example_embedding, fuzzing, generation, intervention,
    intervention_choice, intruder, simulation, simulation_logprobs, surprisal."""
    nulls: tuple[str, ...] = (SHUFFLED, "generic", "empty", "unigram")
    """Beside every score: also `random`, for which random directions are explained and scored as the latents were."""
    n_null: int = 50
    """Latents, drawn at random, on which nulls other than `shuffled` are scored; 0 for all."""
    seed: int = 0
    """Of the nulls."""
    tools: ToolsConfig = field(default_factory=ToolsConfig)

    def __post_init__(self) -> None:
        known(self.scorer, SCORERS, "scorer")
        for name in self.nulls:
            known(name, dict.fromkeys(NULLS), "null")
        if self.n_null < 0:
            raise UsageError(f"nulls on {self.n_null} latents: choose 0 (all) or above")


def score(
    cfg: ScoreConfig, explanations_run: Run, root: Path, progress: Progress = no_progress, tools: Tools | None = None
) -> Run:
    """Score explanations into `root/scores/<hash>` and publish them, or return what is already there.

    Every explanation is scored on its latent's trial, and so are the nulls: what it gets above them is what it knows of
    this latent in particular.

    Args:
        cfg: how.
        explanations_run: what to score.
        root: of the run.
        progress: told of every latent.
        tools: in place of those that `cfg.tools` names.

    Raises:
        UsageError: a trial shares a document with what the explainer saw, or a tool is not to be had.
    """
    cfg.tools.check()
    index_run = find_run(root, explanations_run.inputs["index"], "index")
    inputs = {"explanations": explanations_run.id, "index": index_run.id}
    with start_run(root, "scores", replace(cfg, tools=cfg.tools.identity), inputs) as run:
        if not run.finished:
            _Job(cfg, run, explanations_run, index_run, tools).go(progress)
        publish(index_run)
        return run


@dataclass(frozen=True)
class _Random:
    """Random directions in place of latents."""

    explanations: Explanations
    sampler: Sampler
    """Of the index of the directions; the same documents are kept apart."""
    latents: tuple[int, ...]
    """By direction, whose density it has."""


@dataclass
class _Job:
    cfg: ScoreConfig
    run: Run
    explained: Run
    index_run: Run
    given: Tools | None
    random: "_Random | None" = None

    def go(self, progress: Progress) -> None:
        if self._judges_random():
            self.random = self._random_where_possible(progress)
        n = len(self.explanations)
        what = f"score with {self.cfg.scorer}"
        stage = Stage.of(self.run, self.tools, tables=TABLES, work=self._score, what=what)
        work_through(stage, range(n + (len(self.random.explanations) if self.random else 0)), progress)
        self.run.finish(summary(self.run.folder, self.explained))

    @cached_property
    def sampler(self) -> Sampler:
        """As the explainer's was: the same documents are kept apart."""
        return Sampler(FeatureIndex(self.index_run.folder), sample_of(self.explained))

    @cached_property
    def tools(self) -> Tools:
        return self.given or Tools(self.cfg.tools, self.run.root, self.sampler, self.run.id)

    @cached_property
    def scorer(self) -> Scorer:
        return SCORERS[self.cfg.scorer](self.tools)

    @cached_property
    def explanations(self) -> Explanations:
        return explanations_of(self.explained)

    @cached_property
    def known(self) -> Known:
        return Known(self.explanations, self._others(), self.sampler)

    def _others(self) -> list[int | None]:
        """Members of a cluster have one explanation: that of another member is no null."""
        together = parts_of(self.explained.folder, "clusters", ["latent", "medoid"])
        cluster = dict(zip(*(column.to_pylist() for column in together.columns), strict=True))
        groups = [cluster.get(latent, latent) for latent in self.explanations.latents.tolist()]
        return derangement(len(groups), self.cfg.seed, groups)

    @cached_property
    def with_nulls(self) -> np.ndarray:
        """`[n]` bool: whether all nulls are scored beside this explanation."""
        n = len(self.explanations)
        drawn = np.zeros(n, bool)
        drawn[np.random.default_rng([self.cfg.seed, 7]).permutation(n)[: self.cfg.n_null or n]] = True
        return drawn

    def _judges_random(self) -> bool:
        return bool(self.explanations) and judges_random(self.cfg, self.scorer)

    def _random_where_possible(self, progress: Progress) -> "_Random | None":
        """An index that was imported has no activations to project on directions: told where nobody asked for them."""
        try:
            return self._random(progress)
        except UsageError as error:
            if RANDOM in self.cfg.nulls:
                raise
            log.warning("no null beside %s: %s", self.cfg.scorer, error)
            return None

    def _random(self, progress: Progress) -> "_Random":
        """Random directions of some latents' densities, explained as the latents were."""
        # Here alone, torch is needed.
        from autointerp.random_directions import DirectionsConfig, random_directions

        latents = tuple(self.explanations.latents[self.with_nulls].tolist())
        directions = random_directions(
            DirectionsConfig(latents=latents, seed=self.cfg.seed), self.index_run, self.run.root, progress
        )
        cfg = explain_config(self.explained)
        asked = cfg.tools.llm
        limited = replace(self.cfg.tools.llm, backend=asked.backend, model=asked.model, base_url=asked.base_url)
        again = replace(
            cfg, latents=tuple(range(len(latents))), select="", cluster_at=0.0, tools=replace(cfg.tools, llm=limited)
        )
        # They are explained for this run's sake, and on its account.
        given = self.given or Tools(again.tools, self.run.root, job=self.run.id)
        sampler = Sampler(FeatureIndex(directions.folder), cfg.sample)
        tools = replace(given, sampler=sampler)
        found = explain(again, directions, self.run.root, progress, tools)
        return _Random(explanations_of(found), sampler, latents)

    async def _score(self, i: int) -> Mapping[str, Rows]:
        """Of the explanation at a place, or, past the last, of a random direction."""
        found: dict[str, Rows] = {table: [] for table in TABLES}
        if self.random and i >= len(self.explanations):
            explanation = self.random.explanations[i - len(self.explanations)]
            trial = self.random.sampler.trial(explanation.latent, self.scorer.wants)
            return await self._judged(
                RANDOM, explanation, replace(trial, latent=self.random.latents[explanation.latent])
            )
        trial = self._trial(i)
        if trial is None:
            return {"scores": [self._skipped(i)]}
        texts = {arm: text for arm in self._arms(i) if (text := ARMS[arm](self.known, i)) is not None}
        for rows in await asyncio.gather(*(self._judged(arm, text, trial) for arm, text in texts.items())):
            for table, some in rows.items():
                found[table] += some
        return found

    def _trial(self, i: int) -> Trial | None:
        """None for a latent of which not all events are kept: what it is silent on is not known."""
        try:
            return self.sampler.trial(int(self.explanations.latents[i]), self.scorer.wants)
        except NotAllKept as error:
            log.warning("not scored: %s", error)
            return None

    def _skipped(self, i: int) -> dict[str, Any]:
        nothing = Score(None, None, 0.5, n_judged=0, n_unparsed=0)
        explanation = self.explanations[i]
        return score_row(
            self.cfg.scorer, EXPLANATION, explanation, Trial.of(explanation.latent, (), ()), nothing, self.run.id
        )

    def _arms(self, i: int) -> list[str]:
        """A scorer that reads no explanation would give every null the same."""
        if not self.scorer.reads_explanation:
            return [EXPLANATION]
        nulls = [arm for arm in self.cfg.nulls if arm == SHUFFLED or (arm != RANDOM and self.with_nulls[i])]
        return [EXPLANATION, *nulls]

    async def _judged(self, arm: str, explanation: Explanation, trial: Trial) -> dict[str, Rows]:
        refuse_overlap(explanation, trial)
        found = await self.scorer(explanation, trial)
        row = score_row(self.cfg.scorer, arm, explanation, trial, found, self.run.id)
        return {"scores": [row], "score_metrics": metric_rows(row, found), "examples": example_rows(row, found)}


def judges_random(cfg: ScoreConfig, scorer: Scorer) -> bool:
    """Whether random directions are scored beside the latents: on request, and for scorers that read no explanation,
    which have no other null. Those that steer have random directions of their own; others judge no contexts."""
    asked = RANDOM in cfg.nulls or (bool(cfg.nulls) and not scorer.reads_explanation)
    return asked and "items" in scorer.wants and not scorer.steers


def refuse_overlap(explanation: Explanation, trial: Trial) -> None:
    """A score on documents that the explainer saw would be of memory.

    Raises:
        UsageError: there are such.
    """
    shared = trial.doc_ids & (explanation.doc_ids or frozenset())
    if shared:
        raise UsageError(
            f"latent {explanation.latent}: {len(shared)} scoring documents were shown to the explainer, so the score "
            "would be of memory, not of meaning: explain and score with the same sample seed"
        )


def explain_config(run: Run) -> ExplainConfig:
    """What a run of explanations was asked for with."""
    given = dict(run.config)
    tools = dict(given.pop("tools", {}))
    llm = LLMConfig(**tools.pop("llm", {}))
    nested = {"sample": SampleConfig(**given.pop("sample")), "tools": ToolsConfig(llm=llm, **tools)}
    return ExplainConfig(**{**given, "latents": tuple(given["latents"])}, **nested)
