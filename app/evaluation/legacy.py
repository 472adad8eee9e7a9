"""Part `legacy`: what other libraries would call this dictionary's explained variance, to check published numbers."""

import math
from dataclasses import dataclass

import torch

from activations.progress import Progress, no_progress
from app.evaluation.subject import Subject
from app.evaluation.withheld import FEWEST
from sae.legacy import LEGACY
from sae.metrics import StreamingFVU
from store.figures import Figure, Measured


@dataclass(frozen=True, kw_only=True)
class LegacyConfig:
    """The one batch that all formulas are taken on."""

    n_rows: int = 16_384
    """Held-out normal rows, the first ones stored."""

    def __post_init__(self) -> None:
        if self.n_rows < 1:
            raise ValueError(f"n_rows={self.n_rows} is no row: choose n_rows >= 1")

    @classmethod
    def quick(cls) -> "LegacyConfig":
        """Fewer rows."""
        return cls(n_rows=4096)


@torch.no_grad()
def measure_legacy(cfg: LegacyConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """Each formula on the same rows, and 1 − FVU on them beside it."""
    parts: list[torch.Tensor] = []
    for some in subject.activations.rows("heldout", ("normal",)).in_order():
        parts.append(some[: cfg.n_rows - sum(map(len, parts))])
        if sum(map(len, parts)) >= cfg.n_rows:
            break
    n = sum(map(len, parts))
    shared = {"n": n, "n_of": "rows", "token_class": "normal", "setting": "one batch"}
    if n < FEWEST:
        note = f"withheld: {n} rows, fewer than {FEWEST}"
        names = ("explained_variance", *LEGACY)
        return Measured([Figure(metric=name, value=None, note=note, **shared) for name in names])
    x = torch.cat(parts)
    x_hat = subject.sae(x.to(subject.sae.W_dec)).x_hat.double().cpu()
    fvu = StreamingFVU()
    fvu.update(x, x_hat)
    ours = fvu.value()
    values = {"explained_variance": None if ours is None else 1 - ours}
    values |= {name: formula(x.double(), x_hat) for name, formula in LEGACY.items()}
    return Measured([_figure(name, value, shared) for name, value in values.items()])


def _figure(name: str, value: float | None, shared: dict) -> Figure:
    if value is None or not math.isfinite(value):
        return Figure(metric=name, value=None, note="not defined on these rows: it divides by zero", **shared)
    return Figure(metric=name, value=value, note="no interval: it is for checking published numbers", **shared)
