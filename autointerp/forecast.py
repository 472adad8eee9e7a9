"""What a job would ask language models before it asks them: calls, tokens, money and time, from a few of its latents.

The job's own explainers, scorers and nulls run on those latents, with a stand-in for the model. A reply may change what
is asked next (an answer that cannot be read is asked for again): that is as often here as with the scripted judge.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

from activations.progress import Progress, no_progress
from autointerp.arms import ARMS, EXPLANATION, RANDOM, SHUFFLED, Known, derangement
from autointerp.embedders import Embedder, HashedEmbedder
from autointerp.explaining import ExplainConfig, ExplainJob, explanations_of, identity, selected
from autointerp.interpret import InterpretConfig, score_configs
from autointerp.latent import Explanation
from autointerp.llm import LLM, Reader
from autointerp.llm.budget import Price
from autointerp.llm.config import BATCHED, LLMConfig, backend_of
from autointerp.llm.rehearsed import Asked, Rehearsed
from autointerp.rows import explanation_of
from autointerp.sample import Sampler
from autointerp.scorers import SCORERS, Scorer
from autointerp.scoring import ScoreConfig, explain_config, judges_random
from autointerp.tools import Tools
from store.feature_index import FeatureIndex
from store.ledger import NANO, Cap, Ledger, Spend, today
from store.replies import Replies, replies_file
from store.run import Run, finished_run

T = TypeVar("T")
N_REHEARSED = 8
"""Latents, or clusters, that are gone through."""


class Count(NamedTuple):
    """Calls and what they take; the parts of a sum of such add up."""

    n_calls: float = 0.0
    """To be sent."""
    n_kept: float = 0.0
    """Whose replies are kept."""
    n_tokens_in: float = 0.0
    n_tokens_out: float = 0.0

    @classmethod
    def anew(cls, asked: Iterable[Asked]) -> "Count":
        """Of requests like these, none of whose replies is kept."""
        return cls.of(each._replace(is_kept=False) for each in asked)

    @classmethod
    def of(cls, asked: Iterable[Asked]) -> "Count":
        """Of these requests."""
        rows = list(asked)
        sent = [each for each in rows if not each.is_kept]
        tokens = (sum(each.n_tokens_in for each in sent), sum(each.n_tokens_out for each in sent))
        return cls(len(sent), len(rows) - len(sent), *tokens)

    def plus(self, other: "Count", times: float = 1.0) -> "Count":
        """With another, taken so many times."""
        return Count(*(mine + times * theirs for mine, theirs in zip(self, other, strict=True)))

    def nano_usd(self, price: Price) -> int | None:
        """Billionths of a dollar; None where the price is not known."""
        return price.nano_usd(round(self.n_tokens_in), round(self.n_tokens_out))


@dataclass(frozen=True)
class StageForecast:
    """One run that a job makes."""

    name: str
    n_latents: int
    """Latents, or clusters, it is about."""
    n_rehearsed: int
    """Of those, how many the count is taken from."""
    count: Count


class _Explained(NamedTuple):
    """Items that were gone through."""

    n_items: int
    n_drawn: int
    found: Sequence[Explanation]
    asked: Sequence[Asked]

    @property
    def n_explanations(self) -> int:
        """That all items will have."""
        return round(len(self.found) * self.n_items / self.n_drawn)

    def stage(self, name: str) -> StageForecast:
        """What all items ask for."""
        count = Count().plus(Count.of(self.asked), self.n_items / self.n_drawn)
        return StageForecast(name, self.n_items, self.n_drawn, count)


class Crossing(NamedTuple):
    """A cap that would stop a job."""

    stage: str
    cap: Cap
    needed: float
    """Of the cap's unit."""


@dataclass(frozen=True)
class Forecast:
    """All runs of a job."""

    stages: tuple[StageForecast, ...]
    llm: LLMConfig
    model: str
    seconds_per_call: float | None
    """As the newest calls of the model took; None where there are none, or they go by batches."""
    today: Spend
    """What all jobs have spent today, which caps of a day count."""

    @property
    def total(self) -> Count:
        """Over the stages."""
        total = Count()
        for stage in self.stages:
            total = total.plus(stage.count)
        return total

    def usd(self, count: Count) -> float | None:
        """Dollars; None where the price is not known."""
        nano = count.nano_usd(self.llm.price)
        return None if nano is None else nano / NANO

    def seconds(self, count: Count) -> float | None:
        """With all slots busy."""
        return None if self.seconds_per_call is None else count.n_calls * self.seconds_per_call / self.llm.concurrency

    def crossed(self) -> list[Crossing]:
        """The caps that would stop the job: each run is held to those per job, all together to those per day."""
        per_job = [stage for stage in self.stages if stage.count.n_calls]
        found = []
        for cap in self.llm.caps:
            if cap.scope == "day":
                needs = {"all of it, after what was spent today,": self._amount(cap, self.total, self.today)}
            else:
                needs = {stage.name: self._amount(cap, stage.count, Spend()) for stage in per_job}
            found += [Crossing(name, cap, needed) for name, needed in needs.items() if needed > cap.most]
        return found

    def _amount(self, cap: Cap, count: Count, spent: Spend) -> float:
        amounts = {
            "calls": count.n_calls + spent.n_calls,
            "tokens": count.n_tokens_in + count.n_tokens_out + spent.n_tokens,
            "usd": (count.nano_usd(self.llm.price) or 0) + spent.nano_usd,
        }
        return float(amounts[cap.unit])


class _NoCalls(Exception):
    """A scorer that asks no language model for replies."""


@dataclass
class _Rehearsal(Tools):
    """Tools that send nothing: similarity is counted in hashed words, which no call depends on."""

    model: Rehearsed | None = None
    is_reader: bool = False

    @cached_property
    def llm(self) -> LLM:
        assert self.model is not None
        return self.model

    @cached_property
    def reader(self) -> Reader:
        if self.is_reader:
            raise _NoCalls
        # Says what is wrong with the backend.
        return super().reader

    @cached_property
    def embedder(self) -> Embedder:
        return HashedEmbedder()


@dataclass
class _Rehearsing:
    """A job gone through on some of its latents."""

    cfg: ExplainConfig
    index_run: Run
    root: Path
    progress: Progress

    def __post_init__(self) -> None:
        self.sampler = Sampler(FeatureIndex(self.index_run.folder), self.cfg.sample)
        self.latents = selected(self.cfg, self.sampler) if self.cfg.select else None
        self.file = replies_file(self.root)
        backend = backend_of(self.cfg.tools.llm, self.root)
        self.model = Rehearsed(backend.name, Replies(self.file))
        settings = {"model": self.model, "is_reader": isinstance(backend, Reader)}
        self.tools = _Rehearsal(self.cfg.tools, self.root, self.sampler, **settings)

    async def explained(self) -> _Explained:
        """Go through the explaining of some items."""
        job = ExplainJob(self.cfg, "dry run", self.sampler, self.tools, selected=self.latents)
        items = job.items()
        drawn, n_before = _spread(items), len(self.model.asked())
        found: list[Explanation] = []
        for item in self.progress(drawn, len(drawn), f"rehearse explaining with {self.cfg.explainer}"):
            rows = await job.work(item)
            found += [explanation_of(row) for row in rows.get("explanations", ())]
        return _Explained(len(items), len(drawn), found, self.model.asked()[n_before:])

    async def scored(self, cfg: ScoreConfig, explanations: Sequence[Explanation], n: int) -> StageForecast:
        """The stage of scoring `n` explanations, of which these are some."""
        name = f"score with {cfg.scorer}"
        try:
            scorer = SCORERS[cfg.scorer](self.tools)
        except _NoCalls:
            return StageForecast(name, n, 0, Count())
        asked = await self._judged(cfg, scorer, explanations)
        count, each = Count(), max(1, len(explanations))
        for arm, requests in asked.items():
            times = n if arm in (EXPLANATION, SHUFFLED) else _n_null(cfg, n)
            count = count.plus(Count.of(requests), times / each)
        if judges_random(cfg, scorer):
            count = count.plus(Count.anew(asked[EXPLANATION]), _n_null(cfg, n) / each)
        return StageForecast(name, n, len(explanations), count)

    async def _judged(
        self, cfg: ScoreConfig, scorer: Scorer, explanations: Sequence[Explanation]
    ) -> dict[str, list[Asked]]:
        """What judging these explanations asks for, by what is judged; of equal requests the first."""
        known = Known(explanations, derangement(len(explanations), cfg.seed), self.sampler)
        nulls = [null for null in cfg.nulls if null != RANDOM] if scorer.reads_explanation else []
        asked: dict[str, list[Asked]] = {arm: [] for arm in (EXPLANATION, *nulls)}
        for i in self.progress(range(len(explanations)), len(explanations), f"rehearse scoring with {cfg.scorer}"):
            trial = self.sampler.trial(explanations[i].latent, scorer.wants)
            for arm, requests in asked.items():
                n_before = len(self.model.asked())
                if (said := ARMS[arm](known, i)) is not None:
                    await scorer(said, trial)
                requests += self.model.asked()[n_before:]
        return asked

    def random(self, cfg: ScoreConfig, explained: _Explained, n: int) -> StageForecast:
        """Explaining random directions, whose contexts nobody has asked about before."""
        n_null = _n_null(cfg, n)
        count = Count().plus(Count.anew(explained.asked), n_null / max(1, explained.n_drawn))
        return StageForecast(f"explain random directions with {self.cfg.explainer}", n_null, explained.n_drawn, count)

    def judges_random(self, cfg: ScoreConfig) -> bool:
        """Whether random directions are explained for it."""
        try:
            return judges_random(cfg, SCORERS[cfg.scorer](self.tools))
        except _NoCalls:
            return False

    def finished(self) -> Run | None:
        """The explanations, where they are there."""
        return finished_run(self.root, "explanations", *identity(self.cfg, self.index_run, self.root, self.latents))

    def is_scored(self, cfg: ScoreConfig, explanations: Run) -> bool:
        """Whether the scores of a run of explanations are there."""
        inputs = {"explanations": explanations.id, "index": self.index_run.id}
        return finished_run(self.root, "scores", replace(cfg, tools=cfg.tools.identity), inputs) is not None

    def told(self, stages: Sequence[StageForecast]) -> Forecast:
        """The stages, with what the ledger knows of the model and of today."""
        ledger, llm = Ledger(self.file), self.cfg.tools.llm
        seconds = None if llm.backend in BATCHED else ledger.seconds(self.model.name)
        return Forecast(tuple(stages), llm, self.model.name, seconds, ledger.spent_on(today()))


def forecast(cfg: InterpretConfig, index_run: Run, root: Path, progress: Progress = no_progress) -> Forecast:
    """What `interpret` with the same arguments would ask for; nothing is sent.

    Raises:
        UsageError: as `interpret` does.
    """
    cfg.explain.tools.check()
    return asyncio.run(_interpreted(_Rehearsing(cfg.explain, index_run, root, progress), score_configs(cfg)))


def forecast_explain(cfg: ExplainConfig, index_run: Run, root: Path, progress: Progress = no_progress) -> Forecast:
    """What `explain` with the same arguments would ask for; nothing is sent.

    Raises:
        UsageError: as `explain` does.
    """
    cfg.tools.check()
    return asyncio.run(_interpreted(_Rehearsing(cfg, index_run, root, progress), ()))


def forecast_score(
    cfg: ScoreConfig, explained: Run, index_run: Run, root: Path, progress: Progress = no_progress
) -> Forecast:
    """What `score` with the same arguments would ask for; nothing is sent.

    Raises:
        UsageError: as `score` does.
    """
    cfg.tools.check()
    again = replace(explain_config(explained), tools=cfg.tools)
    return asyncio.run(_scored(_Rehearsing(again, index_run, root, progress), cfg, explained))


async def _interpreted(rehearsing: _Rehearsing, scored: Sequence[ScoreConfig]) -> Forecast:
    done, name = rehearsing.finished(), f"explain with {rehearsing.cfg.explainer}"
    explained = await rehearsing.explained()
    n = explained.n_explanations
    stages = [explained.stage(name) if done is None else _finished(name, explained.n_items)]
    stages += await _all_scored(rehearsing, scored, done, explained.found, n, explained)
    return rehearsing.told(stages)


async def _scored(rehearsing: _Rehearsing, cfg: ScoreConfig, done: Run) -> Forecast:
    explanations = explanations_of(done)
    explained = await rehearsing.explained() if rehearsing.judges_random(cfg) else None
    stages = await _all_scored(rehearsing, [cfg], done, _spread(explanations), len(explanations), explained)
    return rehearsing.told(stages)


async def _all_scored(
    rehearsing: _Rehearsing,
    scored: Sequence[ScoreConfig],
    done: Run | None,
    explanations: Sequence[Explanation],
    n: int,
    explained: _Explained | None,
) -> list[StageForecast]:
    """Random directions and scores, as far as they are not there; `done` is the run of explanations if it is."""
    missing = [cfg for cfg in scored if done is None or not rehearsing.is_scored(cfg, done)]
    stages = []
    random = next((cfg for cfg in missing if rehearsing.judges_random(cfg)), None)
    if random is not None and explained is not None:
        stages.append(rehearsing.random(random, explained, n))
    for cfg in scored:
        name = f"score with {cfg.scorer}"
        stages.append(await rehearsing.scored(cfg, explanations, n) if cfg in missing else _finished(name, n))
    return stages


def _finished(name: str, n: int) -> StageForecast:
    return StageForecast(f"{name} (is there)", n, 0, Count())


def _n_null(cfg: ScoreConfig, n: int) -> int:
    """Of `n` explanations, those beside which all nulls are scored."""
    return min(cfg.n_null, n) if cfg.n_null else n


def _spread(items: Sequence[T]) -> list[T]:
    """Some of the items, at equal distances."""
    n = min(N_REHEARSED, len(items))
    return [items[i * len(items) // n] for i in range(n)]
