"""Does an SAE recover planted features? Toy superposition with a random dictionary and PCA as controls.

Sharkey et al. 2022, "Taking features out of superposition with sparse autoencoders": mean max cosine similarity (MMCS)
between the planted directions and the dictionary's; beside it the mean cosine of a one-to-one matching (MCC), features
recovered at cosine 0.9, and F1 of a latent's firing for its feature's presence (`sae.recovery`). A random dictionary of
the same shape says what chance gives, and principal components what a method that cannot hold more directions than
dimensions gives. Both are read by their largest projections, as many as the trained dictionary has active latents.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activations.progress import Progress, no_progress
from sae.base import SAE
from sae.encoder import EncoderSAE
from sae.geometry import random_like
from sae.intervals import seeds_interval
from sae.recovery import Recovery, measure_recovery, read_by_projection
from sae.synthetic import Superposition, SuperpositionConfig
from sae.threads import one_thread
from sae.topk import TopK, TopKConfig
from sae.train import TrainConfig, train

WORLD = SuperpositionConfig(n_features=64, d_in=32, mean_active=3.0)
D_SAE = 128
"""Twice as many latents as features: with exactly as many, a few features share one latent at every seed."""
K = 4
"""Latents of a row: one more than features present in the mean."""
BATCH = 512
N_SAMPLE = 8192
"""Rows that nothing was trained on, for F1."""
METRICS = ("mcc", "mmcs", "n_recovered", "f1", "l0")

Fit = Callable[[Iterator[Tensor], int], SAE]
"""From endless batches of planted rows and a seed to a dictionary."""


def run(seeds: tuple[int, ...] = (0, 1, 2), progress: Progress = no_progress, n_steps: int = 1000) -> dict[str, Any]:
    """What the trained dictionary and both controls found for every seed, and the means with their intervals."""

    def fit(batches: Iterator[Tensor], seed: int) -> SAE:
        return trained(TopK(TopKConfig(d_in=WORLD.d_in, d_sae=D_SAE, k=K)), batches, seed, n_steps)

    found = [compare(fit, seed) for seed in progress(seeds, len(seeds), "train one dictionary a seed")]
    arms = found[0]
    return {
        "seeds": list(seeds),
        "n_features": WORLD.n_features,
        **{name: {arm: over_seeds([one[arm] for one in found], name) for arm in arms} for name in METRICS},
        "per_seed": {
            str(seed): {arm: recovery._asdict() for arm, recovery in one.items()}
            for seed, one in zip(seeds, found, strict=True)
        },
    }


@one_thread()
def compare(fit: Fit, seed: int, *, absolute: bool = False) -> dict[str, Recovery]:
    """Plant features, fit a dictionary, and measure it beside both controls.

    Args:
        fit: makes the dictionary.
        seed: of the features, the rows and the fit.
        absolute: whether its coefficients may be negative, so that signs mean nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    world = Superposition(WORLD, generator)

    def batches() -> Iterator[Tensor]:
        while True:
            yield world.sample(BATCH, generator).x

    sae = fit(batches(), seed)
    sample = world.sample(N_SAMPLE, generator)
    found = measure_recovery(sae, world.features, sample, absolute=absolute)
    centre = sample.x.mean(dim=0)
    components = torch.linalg.svd(sample.x - centre, full_matrices=False).Vh
    controls = {
        "random": random_like(sae.W_dec.detach(), generator),
        # a component's sign is arbitrary, so both signs may match
        "pca": torch.cat([components, -components]),
    }
    k = round(found.l0)
    read = {name: read_by_projection(directions, centre, k) for name, directions in controls.items()}
    return {"sae": found} | {
        name: measure_recovery(one, world.features, sample, absolute=absolute) for name, one in read.items()
    }


def trained(sae: EncoderSAE, batches: Iterator[Tensor], seed: int, n_steps: int) -> EncoderSAE:
    """The same SAE after `n_steps` of training."""
    for _ in train(sae, batches, TrainConfig(n_steps=n_steps, lr=3e-3, seed=seed)):
        pass
    return sae


def over_seeds(found: Sequence[Recovery], metric: str) -> dict[str, float | None]:
    """The mean of a figure over those seeds where it could be told, and its 95 % interval."""
    values = np.array([value for one in found if (value := getattr(one, metric)) is not None], float)
    interval = seeds_interval(values)
    mean = float(values.mean()) if len(values) else None
    return {"mean": mean, "low": interval.low if interval else None, "high": interval.high if interval else None}
