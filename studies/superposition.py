"""Does an SAE recover planted features? Toy superposition with a random dictionary and PCA as controls.

Sharkey et al. 2022, "Taking features out of superposition with sparse autoencoders": mean max cosine similarity (MMCS)
between the planted directions and the dictionary's. A random dictionary of the same shape says what chance gives, and
principal components what a method that cannot hold more directions than dimensions gives.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from activations.progress import Progress, no_progress
from sae.synthetic import Superposition, SuperpositionConfig, mean_max_cosine
from sae.topk import TopK, TopKConfig
from sae.train import TrainConfig, train

BATCH = 1024


def run(seeds: tuple[int, ...] = (0, 1, 2), progress: Progress = no_progress, n_steps: int = 1000) -> dict[str, Any]:
    """MMCS of the trained dictionary and of both controls for every seed, and their means."""
    rows = [_one(seed, n_steps) for seed in progress(seeds, len(seeds), "train one dictionary a seed")]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("topk", "random", "pca")}
    return {"seeds": list(seeds), "mmcs": means, "per_seed": {str(s): row for s, row in zip(seeds, rows, strict=True)}}


def _one(seed: int, n_steps: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    world = Superposition(SuperpositionConfig(n_features=64, d_in=32, mean_active=3.0), generator)

    def batches() -> Iterator[Tensor]:
        while True:
            yield world.sample(BATCH, generator).x

    # Twice as many latents as features: with exactly as many, a few features share one latent at every seed.
    sae = TopK(TopKConfig(d_in=32, d_sae=128, k=4))
    for _ in train(sae, batches(), TrainConfig(n_steps=n_steps, lr=3e-3, seed=seed)):
        pass
    sample = world.sample(8192, generator).x
    components = torch.linalg.svd(sample - sample.mean(0), full_matrices=False).Vh
    random = torch.randn(sae.W_dec.shape, generator=generator)
    return {
        "topk": mean_max_cosine(sae.W_dec, world.features),
        "random": mean_max_cosine(random, world.features),
        # A component's sign is arbitrary, so both signs may match.
        "pca": mean_max_cosine(torch.cat([components, -components]), world.features),
    }
