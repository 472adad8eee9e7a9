"""Both jobs, one after the other: explain latents, then score what was said by one or more scorers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from activations.progress import Progress, no_progress
from autointerp.arms import NULLS, SHUFFLED
from autointerp.explaining import ExplainConfig, explain, known
from autointerp.scorers import SCORERS
from autointerp.scoring import ScoreConfig, score
from autointerp.tools import Tools
from store.errors import UsageError
from store.run import Run


@dataclass(frozen=True, kw_only=True)
class InterpretConfig:
    """Which latents, how they are explained, and by what that is judged."""

    explain: ExplainConfig = field(default_factory=ExplainConfig)
    scorers: tuple[str, ...] = ("embedding",)
    """Who judges: detection, discrimination, embedding, example_embedding, fuzzing, generation, intervention,
    intervention_choice, intruder, simulation, simulation_logprobs, surprisal."""
    nulls: tuple[str, ...] = (SHUFFLED, "generic", "empty", "unigram")
    """Beside every score: also `random`, for which random directions are explained and scored as the latents were."""
    n_null: int = 50
    """Latents, drawn at random, on which nulls other than `shuffled` are scored; 0 for all."""

    def __post_init__(self) -> None:
        for name in self.scorers:
            known(name, SCORERS, "scorer")
        for name in self.nulls:
            known(name, dict.fromkeys(NULLS), "null")
        if not self.scorers:
            raise UsageError("--scorers is empty: name at least one, or use `monosem explain`")


def interpret(
    cfg: InterpretConfig, index_run: Run, root: Path, progress: Progress = no_progress, tools: Tools | None = None
) -> tuple[Run, Sequence[Run]]:
    """Explain, then score by every scorer: what is there already is not made again.

    Raises:
        UsageError: as `explain` and `score` do.
    """
    explanations = explain(cfg.explain, index_run, root, progress, tools)
    scores = [score(each, explanations, root, progress, tools) for each in score_configs(cfg)]
    return explanations, scores


def score_configs(cfg: InterpretConfig) -> list[ScoreConfig]:
    """Of each scorer."""
    of = ScoreConfig(nulls=cfg.nulls, n_null=cfg.n_null, seed=cfg.explain.sample.seed, tools=cfg.explain.tools)
    return [replace(of, scorer=name) for name in cfg.scorers]
