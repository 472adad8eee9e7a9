"""One latent's steered continuations of its contexts beside controls of the same effect.

Contexts are cut after the first token on which the latent fires. Every continuation of a context, whatever is steered,
is of one seed and of one KL(clean ‖ steered) of the next token. Paulo et al. 2024, arXiv:2410.13928, section 3.4.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from autointerp.latent import Trial
from autointerp.steering import Direction, Steerable, Steered
from store.latents import Window

STEERED = "steered"
"""Along the latent; every other arm is a control."""


@dataclass(frozen=True, kw_only=True)
class InterventionConfig:
    """How much is steered, and how long."""

    n_prompts: int = 12
    """Contexts that are continued, at most."""
    kl: float = 0.5
    """Effect of steering on the next token, in nats."""
    n_tokens: int = 16
    """Of a continuation, at most."""


@dataclass(frozen=True)
class Continuations:
    """What was written after each prompt."""

    prompts: tuple[Window, ...]
    """Contexts, uncut."""
    clean: tuple[Steered, ...]
    """By the model as it is."""
    arms: Mapping[str, tuple[Steered | None, ...]]
    """`steered`, along the latent; `random_direction` and `other_latent`, another of them for each prompt. None where
    no strength has the effect."""


async def continuations(subject: Steerable, trial: Trial, cfg: InterventionConfig) -> Continuations:
    """Continue the trial's active contexts in every arm; the model works in a thread of its own."""
    return await asyncio.to_thread(_continuations, subject, trial, cfg)


def _continuations(subject: Steerable, trial: Trial, cfg: InterventionConfig) -> Continuations:
    windows = trial.active[: cfg.n_prompts]
    prompts = [up_to_first_active(window) for window in windows]
    if not prompts:
        return Continuations((), (), {})
    seed = int(np.random.default_rng([trial.seed, 11]).integers(2**31))
    clean = subject.steer(trial.latent, prompts, strength=0.0, n_tokens=cfg.n_tokens, seed=seed)
    arms = {
        arm: tuple(subject.steer(directions, prompts, kl=cfg.kl, n_tokens=cfg.n_tokens, seed=seed))
        for arm, directions in _directions(subject, trial, len(prompts)).items()
    }
    return Continuations(windows, tuple(said for said in clean if said), arms)


def _directions(subject: Steerable, trial: Trial, n: int) -> dict[str, list[Direction]]:
    """Fresh controls for each prompt: a single one may happen to be like the latent."""
    random = np.random.default_rng([trial.seed, trial.latent, 12])
    others = subject.alive[subject.alive != trial.latent]
    arms: dict[str, list[Direction]] = {
        STEERED: [trial.latent] * n,
        "random_direction": [
            subject.random_direction(trial.latent, int(seed)) for seed in random.integers(2**31, size=n)
        ],
    }
    if len(others):
        arms["other_latent"] = random.choice(others, n, replace=len(others) < n).tolist()
    return arms


def up_to_first_active(window: Window) -> Window:
    """The window up to and with the first token on which the latent fires."""
    stop = 1 + next((i for i, value in enumerate(window.values) if value > 0), window.peak)
    return replace(
        window,
        tokens=window.tokens[:stop],
        token_ids=window.token_ids[:stop],
        values=window.values[:stop],
        peak=stop - 1,
        chars=(-1, -1),
    )
