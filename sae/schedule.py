"""What changes over a run, as pure functions of the step: learning rate, sparsity and k.

η(step) = lr · warmup · decay, with the rule lr = 2e-4 / sqrt(d_sae / 2^14): the 1/sqrt(d_sae) law of Gao et al. 2024,
arXiv:2406.04093, appendix A.3, anchored at 16,384 latents.
"""

import math
from collections.abc import Callable
from typing import Literal

DecayShape = Literal["linear", "cosine"]

DECAYS: dict[DecayShape, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
}
"""Shape of the fall from 1 to 0 as progress goes from 0 to 1."""


def default_lr(d_sae: int) -> float:
    """The learning rate for Adam at this width."""
    return 2e-4 / math.sqrt(d_sae / 2**14)


def lr_factor(step: int, n_steps: int, warmup: float, decay: float, shape: DecayShape = "linear") -> float:
    """Factor on the learning rate at `step` in 0..n_steps-1: a linear rise, a plateau, a fall.

    `warmup` and `decay` are fractions of the run. No step gets factor 0: each would be a batch read for nothing.
    """
    n_falling = decay * n_steps
    into_fall = step + 1 - (n_steps - n_falling)
    falling = DECAYS[shape](into_fall / (n_falling + 1)) if into_fall > 0 else 1.0
    return rise(step, n_steps, warmup) * falling


def rise(step: int, n_steps: int, warmup: float) -> float:
    """A linear rise to 1 over the fraction `warmup` of the run; never 0."""
    return min(1.0, (step + 1) / max(1.0, warmup * n_steps))


def annealed_k(step: int, n_steps: int, start: int, end: int, fraction: float) -> int:
    """k at `step`: linear from `start` to `end` over the first `fraction` of the run, then `end`."""
    n_annealed = fraction * n_steps
    return end if step >= n_annealed else round(start + (end - start) * step / n_annealed)
