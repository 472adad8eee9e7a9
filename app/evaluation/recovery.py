"""Synthetic ground truth: what the dictionary's variant, with its settings, recovers of features that were planted.

A statement about the method and its settings, not about these weights: dictionaries of the same variant are trained
anew on rows whose features are known (`studies.superposition`), beside random directions and principal components.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from activations.progress import Progress, no_progress
from app.evaluation.subject import NotApplicable, Subject
from sae.base import SAE, SAEConfig
from sae.encoder import EncoderSAE
from sae.itda import ITDA, ITDAConfig, Provenance
from sae.itda_build import BuildConfig, Labelled, build
from sae.recovery import RECOVERED, Recovery
from store.figures import Figure, Measured
from studies.superposition import BATCH, D_SAE, WORLD, Fit, K, compare, over_seeds, trained

ITDA_BATCHES = 32
"""Batches that an ITDA may choose its atoms from."""
SETTING = f"{WORLD.n_features} planted features in {WORLD.d_in} dimensions, {D_SAE} latents"
ABOUT = "of the variant and its settings on planted data, not of these weights"


@dataclass(frozen=True, kw_only=True)
class RecoveryConfig:
    """How often, and how long, dictionaries are trained on planted data."""

    n_seeds: int = 3
    """Worlds of planted features, with one dictionary each; 3 or more tell how sure the figures are."""
    n_steps: int = 1000
    """Steps of training, 512 rows each."""
    seed: int = 0
    """Of the first one; the others follow."""

    @classmethod
    def quick(cls) -> "RecoveryConfig":
        """Fewer steps: features are then found, but not all."""
        return cls(n_steps=300)


def measure_recovery(cfg: RecoveryConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """MCC, mean max cosine, features recovered and F1, over several planted worlds.

    Raises:
        NotApplicable: the variant maps one place to another, or several together.
    """
    if "origin" in subject.sae_run.config:
        raise NotApplicable(
            f"{subject.name} was trained by another library, and how is not known: planted features are for settings"
        )
    fit, is_signed = _fit(subject.sae, cfg.n_steps), isinstance(subject.sae, ITDA)
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    labelled = progress(seeds, len(seeds), "train on planted features")
    found = [compare(fit, seed, absolute=is_signed) for seed in labelled]
    return Measured([figure for arm in found[0] for figure in _figures(arm, [one[arm] for one in found])])


def _figures(arm: str, found: list[Recovery]) -> Iterator[Figure]:
    n_undefined = sum(one.n_undefined for one in found)
    settings = {"n_recovered": f"cosine > {RECOVERED} of {WORLD.n_features}"}
    for metric in ("mcc", "mmcs", "n_recovered", "f1", "l0"):
        over = over_seeds(found, metric)
        note = f"{ABOUT}; {SETTING}; Student's t over seeds"
        if metric == "f1" and n_undefined:
            note += f"; {n_undefined} features never present and never fired for left out"
        yield Figure(
            metric=f"planted_{metric}",
            value=over["mean"],
            n=len(found),
            n_of="seeds",
            arm=arm,
            setting=settings.get(metric, ""),
            low=over["low"],
            high=over["high"],
            note=note,
        )


def _fit(sae: SAE, n_steps: int) -> Fit:
    """How a dictionary like this one is made.

    Raises:
        NotApplicable: as `measure_recovery`.
    """
    if isinstance(sae, ITDA):
        return partial(_built, sae.cfg)
    if not isinstance(sae, EncoderSAE) or hasattr(sae.cfg, "d_out") or hasattr(sae.cfg, "site_widths"):
        raise NotApplicable(
            f"{type(sae).__name__} does not reconstruct the rows it reads, but planted features are those of such rows"
        )
    cls, small = type(sae), planted_config(sae.cfg)
    return lambda batches, seed: trained(cls(small), batches, seed, n_steps)


def planted_config(cfg: SAEConfig) -> Any:
    """The same settings at the planted world's widths and sparsity: L0 goes with how many features are present, sizes
    that go with d_sae shrink with it, and all else stays."""
    scale = D_SAE / cfg.d_sae
    replaced = {
        # K coefficients that make up ‖x‖ = sqrt(d_in) cost λ sqrt(K / d_in): as much as they did, relative to the FVU
        "l1_coefficient": getattr(cfg, "l1_coefficient", 0.0) * math.sqrt(WORLD.d_in / cfg.d_in),
        "k": K,
        "target_l0": WORLD.mean_active,
        "k_aux": None,
        "prefixes": tuple(sorted({max(1, round(size * scale)) for size in getattr(cfg, "prefixes", ())})),
    }
    known = {field.name for field in dataclasses.fields(cfg)}
    changes = {name: value for name, value in replaced.items() if name in known}
    return dataclasses.replace(cfg, d_in=WORLD.d_in, d_sae=D_SAE, **changes)


def _built(cfg: ITDAConfig, batches: Iterator[Tensor], seed: int) -> ITDA:
    """An ITDA of the same threshold; its rows are from nowhere, one place each."""
    settings = BuildConfig(k=K, target_cos=cfg.target_cos, max_atoms=D_SAE)
    return build(_placed(islice(batches, ITDA_BATCHES)), settings)


def _placed(batches: Iterator[Tensor]) -> Iterator[Labelled]:
    for number, x in enumerate(batches):
        here = torch.arange(number * BATCH, number * BATCH + len(x))
        yield x, Provenance(here, here, here, here)
