"""Decoder geometry: nearest-neighbour cosines, singular spectrum and effective rank, beside their controls."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from activations.progress import Progress, no_progress
from app.evaluation.samples import firing
from app.evaluation.subject import NotApplicable, Subject
from sae.geometry import CONTROLS, effective_rank, nearest, participation_ratio, spectrum
from store.figures import SAE_ARM, Curve, Figure, Measured

QUANTILES = (0.05, 0.5, 0.95, 1.0)
DUPLICATE = 0.9
"""Cosine from which two latents are called near-duplicates."""
BINS = 50


@dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """How decoder geometry is measured; the directions are those of latents that fire."""

    n_rows: int = 32_768
    """Rows of both splits, of the classes trained on, among which a latent that never fires is left out as dead."""
    seed: int = 0
    """Of the random and the permuted control."""

    @classmethod
    def quick(cls) -> "GeometryConfig":
        """Fewer rows; the directions are all looked at."""
        return cls(n_rows=8192)


def measure_geometry(cfg: GeometryConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """Of the live latents' decoder rows, and of each control of their shape.

    Raises:
        NotApplicable: fewer than two latents fire.
    """
    seen = firing(subject, cfg.n_rows, progress)
    directions = subject.sae.W_dec.detach()
    alive = (seen.counts > 0) & (torch.linalg.vector_norm(directions, dim=1) > 0)
    if alive.sum() < 2:
        raise NotApplicable(
            f"{int(alive.sum())} latents fire on {seen.n_rows:,} rows: there are no directions to compare"
        )
    directions = directions[alive]
    generator = torch.Generator().manual_seed(cfg.seed)
    arms = {SAE_ARM: directions} | {name: control(directions, generator) for name, control in CONTROLS.items()}
    n_dead = len(alive) - len(directions)
    left_out = f"{n_dead} of {len(alive)} latents, silent on {seen.n_rows:,} rows, left out" if n_dead else ""
    figures, curves = [], []
    for arm, rows in progress(arms.items(), len(arms), "compare directions"):
        note = left_out if arm == SAE_ARM else ""
        for some in (_neighbours(arm, rows, note), _rank(arm, rows, note)):
            figures.extend(some.figures)
            curves.extend(some.curves)
    return Measured(figures, curves)


def _neighbours(arm: str, rows: Tensor, note: str) -> Measured:
    cosines = nearest(rows).cosine.numpy()
    values = {f"q={q:g}": np.quantile(cosines, q) for q in QUANTILES} | {"mean": cosines.mean()}
    figures = [_figure("nearest_cosine", value, rows, arm, note, setting) for setting, value in values.items()]
    share = float((cosines > DUPLICATE).mean())
    figures.append(_figure("near_duplicates", share, rows, arm, note, f"cosine > {DUPLICATE}"))
    counts, edges = np.histogram(cosines, BINS, range=(min(0.0, cosines.min()), 1.0 + 1e-9))
    middles = (edges[1:] + edges[:-1]) / 2
    return Measured(
        figures, [Curve(plot="nearest_cosine", series=arm, x=_tuple(middles), y=_tuple(counts / len(rows)))]
    )


def _rank(arm: str, rows: Tensor, note: str) -> Measured:
    values = spectrum(rows)
    of = f"of {rows.shape[1]} dimensions"
    note = f"{of}; {note}" if note else of
    figures = [
        _figure("effective_rank", effective_rank(values), rows, arm, note),
        _figure("participation_ratio", participation_ratio(values), rows, arm, note),
    ]
    x = tuple(float(n) for n in range(1, len(values) + 1))
    return Measured(figures, [Curve(plot="singular_spectrum", series=arm, x=x, y=_tuple((values / values[0]).numpy()))])


def _figure(metric: str, value: float, rows: Tensor, arm: str, note: str, setting: str = "") -> Figure:
    return Figure(metric=metric, value=float(value), n=len(rows), n_of="latents", arm=arm, setting=setting, note=note)


def _tuple(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))
