"""Pooled texts with planted latents: which latent is which class is known, and so is what ablating it does."""

import numpy as np
from scipy import sparse

from sae.probing import PooledTexts

N_CLASSES, D_IN, D_SAE = 3, 24, 60


def directions(seed: int = 0) -> np.ndarray:
    """Unit decoder rows; the first `N_CLASSES` are orthogonal to one another."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((D_SAE, D_IN))
    rows[: D_IN // 2] = np.linalg.qr(random.standard_normal((D_IN, D_IN)))[0][: D_IN // 2]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(labels: np.ndarray, active: np.ndarray, seed: int, noise: float = 0.02) -> PooledTexts:
    """Texts whose latent j is active where `active[:, j]`; all latents from 12 on are active at random.

    Latents 0 to 11 are orthogonal directions.
    """
    random = np.random.default_rng(seed)
    n = len(labels)
    values = np.zeros((n, D_SAE))
    values[:, : active.shape[1]] = active * random.uniform(0.8, 1.2, active.shape)
    values[:, D_IN // 2 :] = (random.random((n, D_SAE - D_IN // 2)) < 0.3) * random.uniform(0.0, 0.1, (n, 1))
    x = values @ directions() + noise * random.standard_normal((n, D_IN))
    return PooledTexts(x, sparse.csr_array(values), labels, np.arange(n) // 2)


def classes(n: int, seed: int) -> PooledTexts:
    """Latent c is active on class c alone."""
    labels = np.arange(n) % N_CLASSES
    return planted(labels, labels[:, None] == np.arange(N_CLASSES), seed)


def cells(n: int, seed: int, strong: float = 1.3) -> PooledTexts:
    """Four labels, 2 · first + second: latents 0 and 1 are the first attribute, 2 and 3 the second, which is louder.

    Latents 6 and 7 are active as often, at random.
    """
    labels = np.arange(n) % 4
    first, second = labels // 2, labels % 2
    coin = np.random.default_rng(seed + 100).random((n, 2)) < 0.5
    nothing = np.zeros((n, 2))
    active = np.stack([first == 1, first == 0, strong * (second == 1), strong * (second == 0)], axis=1)
    return planted(labels, np.hstack([active, nothing, coin]), seed, noise=0.05)
