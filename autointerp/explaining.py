"""The job that explains latents."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from activations.progress import Progress, no_progress
from autointerp.chunks import Stage, work_through
from autointerp.clusters import Cluster, ClusterConfig, clusters, explain_cluster, per_member
from autointerp.explain import EXPLAINERS, Explainer
from autointerp.explain.asking import NO_EVIDENCE, Asking
from autointerp.explain.best_of import BestOf
from autointerp.explain.noop import loaded_identity
from autointerp.explained import Explanations
from autointerp.latent import Evidence, Explanation, Unexplained
from autointerp.leakage import LEAKS
from autointerp.rows import Rows, candidate_rows, cluster_rows, explanation_row, unexplained_row
from autointerp.sample import SampleConfig, Sampler
from autointerp.scorers import SCORERS
from autointerp.tools import Tools, ToolsConfig
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import batches_of, parts_of, publish
from store.run import Run, start_run

OF_DIRECTIONS = "random_explanations"
"""Kind of the runs that explain random directions: a null, which nobody means by the latest explanations."""
TABLES = ("clusters", "candidates", "unexplained", "explanations")
"""That the job writes, for each chunk in this order."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Which latents to explain, and how."""

    explainer: str = "tokens"
    """Who explains: contrastive, default, ensemble, noop, output, single_token, tokens, top."""
    n_latents: int = 30
    """Drawn at random from the latents with enough contexts."""
    latents: tuple[int, ...] = ()
    """These latents instead of a draw."""
    select: str = ""
    """A SELECT over the index whose first column is `latent`, instead of a draw."""
    cluster_at: float = 0.0
    """Explain latents together whose decoder rows have this mean cosine or more, and no others: among those asked for,
    or clusters drawn at random, --n-latents of them. 0 for each latent alone."""
    best_of: int = 1
    """Explanations of each latent, of which the best on documents of their own is kept: needs --select-share."""
    best_by: str = "embedding"
    """Which scorer chooses it: any that `--scorers` of `monosem interpret` takes."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    tools: ToolsConfig = field(default_factory=ToolsConfig)

    def __post_init__(self) -> None:
        known(self.explainer, EXPLAINERS, "explainer")
        known(self.best_by, SCORERS, "scorer")
        if not 0 <= self.cluster_at < 1:
            raise UsageError(f"cluster_at={self.cluster_at} is no cosine: choose 0 (one by one) to below 1")
        if self.cluster_at and self.explainer == "noop":
            raise UsageError("noop loads explanations of single latents: leave --cluster-at out")
        if self.latents and self.select:
            raise UsageError("--latents and --select both say which latents: leave one out")
        if self.n_latents < 1:
            raise UsageError(f"n_latents={self.n_latents}: choose 1 or more")
        if self.best_of > 1 and not self.sample.select_share:
            raise UsageError(
                f"the best of {self.best_of} needs documents to choose on: pass --select-share 0.2, or --best-of 1"
            )


def explain(
    cfg: ExplainConfig, index_run: Run, root: Path, progress: Progress = no_progress, tools: Tools | None = None
) -> Run:
    """Explain latents into `root/explanations/<hash>` and publish them, or return what is already there.

    Args:
        cfg: which and how.
        index_run: the index, or random directions.
        root: of the run.
        progress: told of every latent.
        tools: in place of those that `cfg.tools` names.

    Raises:
        UsageError: no latent with enough contexts, or a latent that was asked for without any.
    """
    cfg.tools.check()
    kind = OF_DIRECTIONS if index_run.kind == "directions" else "explanations"
    sampler = cache(lambda: Sampler(FeatureIndex(index_run.folder), cfg.sample))
    latents = selected(cfg, sampler()) if cfg.select else None
    with start_run(root, kind, *identity(cfg, index_run, root, latents)) as run:
        if not run.finished:
            tools = tools or Tools(cfg.tools, root, sampler(), run.id)
            is_null = kind == OF_DIRECTIONS
            ExplainJob(cfg, run.id, sampler(), tools, selected=latents, is_null=is_null).go(run, progress)
        publish(index_run)
        return run


def identity(
    cfg: ExplainConfig, index_run: Run, root: Path, latents: list[int] | None
) -> tuple[ExplainConfig, dict[str, str], dict[str, Any] | None]:
    """The config, inputs and sameness of a run, for `start_run`. A selection is its `latents`, those that it has now,
    and what is loaded is its contents: the same words may mean others tomorrow."""
    told = replace(cfg, tools=cfg.tools.identity)
    if not cfg.select and not cfg.tools.load:
        return told, {"index": index_run.id}, None
    plainly = replace(told, select="", tools=replace(told.tools, load=""))
    same = {
        "config": plainly,
        "latents": latents or [],
        "loaded": loaded_identity(cfg.tools.load, root) if cfg.tools.load else "",
    }
    return told, {"index": index_run.id}, same


def selected(cfg: ExplainConfig, sampler: Sampler) -> list[int]:
    """The latents of `--select`, ascending: without ORDER BY no two answers need have the same order."""
    return sorted(sampler.select(cfg.select))


@dataclass
class ExplainJob:
    """What `explain` does, item by item."""

    cfg: ExplainConfig
    run_id: str
    sampler: Sampler
    tools: Tools
    selected: list[int] | None = None
    """The latents of `--select`, where it was asked for: asked again, it might have others."""
    is_null: bool = False
    """Whether the latents are random directions, which nobody named."""

    def go(self, run: Run, progress: Progress) -> None:
        """Work through all items and finish the run."""
        items = self.items()
        what = f"explain with {self.cfg.explainer}"
        stage = Stage.of(run, self.tools, tables=TABLES, work=self.work, what=what)
        work_through(stage, items, progress)
        n_chosen = sum(1 if isinstance(item, int) else len(item.latents) for item in items)
        run.finish(self._results(run.folder, n_chosen))

    def items(self) -> Sequence[int | Cluster]:
        """Latents, or clusters of them: each is explained once.

        Raises:
            UsageError: there is none.
        """
        return self._clusters() if self.cfg.cluster_at else self._chosen()

    async def work(self, item: int | Cluster) -> Mapping[str, Rows]:
        """The rows of an item, by table."""
        return await (self._explain(item) if isinstance(item, int) else self._explain_cluster(item))

    def _chosen(self) -> list[int]:
        if self.selected is not None:
            return self.selected
        return list(dict.fromkeys(self.cfg.latents)) or self.sampler.choose(self.cfg.n_latents)

    def _clusters(self) -> list[Cluster]:
        asked = bool(self.cfg.latents or self.cfg.select)
        among = self._chosen() if asked else self.sampler.eligible()
        found = clusters(self.sampler.index, among, self._cluster_config)
        if not found:
            raise UsageError(
                f"no two of {len(among):,} latents have decoder rows of a cosine of {self.cfg.cluster_at}: lower "
                "--cluster-at, or leave it out"
            )
        if asked or len(found) <= self.cfg.n_latents:
            return found
        random = np.random.default_rng([self.cfg.sample.seed, 2])
        return [found[i] for i in sorted(random.choice(len(found), self.cfg.n_latents, replace=False).tolist())]

    @cached_property
    def _cluster_config(self) -> ClusterConfig:
        return ClusterConfig(min_cosine=self.cfg.cluster_at, n_contexts=self.cfg.sample.n_explain)

    @cached_property
    def _explainer(self) -> Explainer | BestOf:
        explainer = EXPLAINERS[self.cfg.explainer](self.tools)
        if self.cfg.best_of == 1:
            return explainer
        if not isinstance(explainer, Asking):
            raise UsageError(f"--explainer {self.cfg.explainer} says the same every time: leave --best-of out")
        return BestOf.of(explainer, SCORERS[self.cfg.best_by](self.tools), self.sampler, self.cfg.best_of)

    async def _explain(self, latent: int) -> Mapping[str, Rows]:
        explainer = self._explainer
        evidence = self.sampler.evidence(latent, explainer.wants)
        if not evidence.windows and "windows" in explainer.wants:
            found: Explanation | Unexplained = self._without_evidence(evidence)
        else:
            found = await explainer(evidence)
        if isinstance(found, Unexplained):
            return {"unexplained": [unexplained_row(found, self.run_id)]}
        return {
            "explanations": [explanation_row(found, self.run_id)],
            "candidates": candidate_rows(found, self.run_id),
        }

    async def _explain_cluster(self, cluster: Cluster) -> Mapping[str, Rows]:
        """An explanation of each member, in the same words: each is scored on contexts of its own."""
        wants = self._explainer.wants
        evidences = [self.sampler.evidence(latent, wants) for latent in cluster.latents]
        if "windows" in wants and not any(each.windows for each in evidences):
            found: Explanation | Unexplained = Unexplained(cluster.medoid, self.cfg.explainer, NO_EVIDENCE)
        else:
            found = await explain_cluster(self._explainer, cluster, evidences, self._cluster_config)
        rows: dict[str, Rows] = {"clusters": cluster_rows(cluster.latents, cluster.medoid, cluster.cosine, self.run_id)}
        if isinstance(found, Unexplained):
            unexplained = [replace(found, latent=latent) for latent in cluster.latents]
            return rows | {"unexplained": [unexplained_row(each, self.run_id) for each in unexplained]}
        return rows | {
            "explanations": [explanation_row(each, self.run_id) for each in per_member(found)],
            "candidates": candidate_rows(found, self.run_id),
        }

    def _without_evidence(self, evidence: Evidence) -> Unexplained:
        if evidence.latent in self.cfg.latents and not self.is_null:
            raise UsageError(
                f"latent {evidence.latent} has no context to explain from: choose one that fires, or leave --latents "
                "out"
            )
        return Unexplained(evidence.latent, self.cfg.explainer, NO_EVIDENCE)

    def _n_clusters(self, folder: Path) -> int:
        return len(parts_of(folder, "clusters", ["medoid"]).column(0).unique())

    def _results(self, folder: Path, n_chosen: int) -> dict[str, Any]:
        quoted = parts_of(folder, "explanations", ["quoted"]).column(0)
        reasons = parts_of(folder, "unexplained", ["reason"]).column(0)
        return {
            "n_chosen": n_chosen,
            "n_explained": len(quoted),
            **({"n_clusters": self._n_clusters(folder)} if self.cfg.cluster_at else {}),
            "n_unexplained": dict(Counter(reasons.to_pylist())),
            "n_quoting": int(np.sum(quoted.to_numpy() >= LEAKS)),
            "explain_docs": self._docs(folder),
            "latents": self.sampler.status()._asdict(),
        }

    def _docs(self, folder: Path) -> list[int]:
        """Every document that was seen for any latent, ascending."""
        seen: set[int] = set()
        for batch in batches_of(folder, "explanations", ["doc_ids"]):
            seen.update(batch.column(0).flatten().unique().to_pylist())
        return sorted(seen)


def explanations_of(run: Run) -> Explanations:
    """What a run of explanations says, by ascending latent; read as it is asked for."""
    return Explanations(run)


def sample_of(run: Run) -> SampleConfig:
    """By which settings a run of explanations kept documents apart; the usual ones where it was imported."""
    return SampleConfig(**run.config.get("sample", {}))


def known(name: str, table: Mapping[str, Any], what: str) -> None:
    """Refuse a name that is not in a table.

    Raises:
        UsageError: it is not.
    """
    if name not in table:
        raise UsageError(f"no {what} '{name}': choose one of {', '.join(table)}")
