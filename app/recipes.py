"""Named, complete settings for the whole path, as plain functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from activations.harvest import HarvestConfig
from activations.text import TextConfig
from app.evaluation.job import PartRequest, requests
from autointerp.explaining import ExplainConfig
from autointerp.index.config import IndexConfig
from autointerp.sample import SampleConfig
from autointerp.scoring import ScoreConfig
from autointerp.tools import ToolsConfig
from sae.train import TrainConfig

CORE = ("reconstruction", "loss")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every stage's settings."""

    harvest: HarvestConfig
    variant: str
    sae: dict[str, Any]
    """The variant's settings but for its input width, which comes from the activations."""
    train: TrainConfig
    batch_size: int
    classes: tuple[str, ...]
    """Token classes trained on and indexed."""
    evaluate: list[PartRequest]
    """The parts that the demo measures; `monosem evaluate` adds all others."""
    index: IndexConfig
    explain: ExplainConfig
    score: ScoreConfig


def smollm2() -> Recipe:
    """SmolLM2-135M-Instruct, residual stream after block 8, natural English: about ten minutes on two cores."""
    classes = ("normal", "sink")
    return Recipe(
        harvest=HarvestConfig(),
        variant="topk",
        sae={"d_sae": 4608, "k": 32},
        # The width rule is for runs of millions of rows; this short one learns faster at 1e-3 and kills no latent.
        train=TrainConfig(n_steps=700, lr=1e-3),
        batch_size=2048,
        classes=classes,
        evaluate=requests(CORE, given={"loss": {"n_sequences": 40}}),
        index=IndexConfig(classes=classes),
        explain=ExplainConfig(n_latents=30),
        score=ScoreConfig(),
    )


def tiny() -> Recipe:
    """A random model over made-up stories: seconds, offline. It shows every command; its latents mean nothing."""
    sample = SampleConfig(n_explain=10, n_score=10, min_contexts=3, min_docs=2, max_density=0.5, half_window=6)
    return Recipe(
        harvest=HarvestConfig(
            model="tiny",
            hook_points=("blocks.1.hook_resid_post",),
            text=TextConfig(corpus="stories", n_tokens=8000),
            n_ctx=64,
        ),
        variant="topk",
        sae={"d_sae": 64, "k": 4},
        train=TrainConfig(n_steps=60),
        batch_size=256,
        classes=("normal",),
        evaluate=requests(CORE, given={"loss": {"n_sequences": 4}}),
        index=IndexConfig(half_window=12),
        explain=ExplainConfig(n_latents=6, sample=sample),
        score=ScoreConfig(tools=ToolsConfig(embedder="hashed")),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"smollm2": smollm2, "tiny": tiny}
"""Every recipe by the name used on the command line."""
