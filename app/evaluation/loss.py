"""Part `loss`: what the model loses with reconstructions in place of activations, against zero and mean ablation."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.losses import ReplaceAll, TokenLosses, token_losses_under
from activations.prepare import heldout_sequences
from activations.progress import Progress, no_progress
from activations.reader import Activations
from app.evaluation.comparable import ALL_PREDICTIONS
from app.evaluation.subject import NotApplicable, Subject
from app.evaluation.withheld import figure
from sae.intervals import GroupSums
from sae.metrics import loss_recovered
from store.errors import UsageError
from store.figures import SAE_ARM, Figure, Measured
from store.shards import TOKEN_CLASSES

ABLATIONS = ("zero ablation", "mean ablation")
CLEAN = "clean model"
CALLED = {"sink": "sink, first position"}
"""First positions predict too, and have the class of sinks."""
MEAN_ROWS = 16_384
"""Rows that the mean is of, at least, where no vector is stored."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How much text goes through the whole model."""

    n_sequences: int = 160
    """Held-out sequences, drawn at random; all of them if there are fewer."""
    batch_tokens: int = 1024
    """Tokens per forward pass, at most."""
    seed: int = 0
    """Which sequences; and of the bootstrap over documents."""

    def __post_init__(self) -> None:
        for name in ("n_sequences", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is no text at all: choose {name} >= 1")

    @classmethod
    def quick(cls) -> "LossConfig":
        """A tenth of that."""
        return cls(n_sequences=16)


def measure_loss(cfg: LossConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """Cross-entropy and KL divergence under every edit, and the share of the ablations' cost that is recovered."""
    activations = subject.activations
    sequences = heldout_sequences(activations.run.folder, cfg.n_sequences, cfg.seed)
    classes = tuple(name for name in subject.run_classes if name != "sink")
    if not classes:
        raise NotApplicable(
            f"{subject.name} was trained on sinks alone, and an edit there breaks the model whatever stands for them"
        )
    found = token_losses_under(
        subject.lm,
        sequences,
        subject.hook_point,
        _edits(subject, classes),
        activations.sink_norm,
        classes=classes,
        batch_tokens=cfg.batch_tokens,
        progress=progress,
    )
    groups = {ALL_PREDICTIONS: np.ones(len(found), bool)}
    groups |= {CALLED.get(name, name): found.token_class == number for name, number in TOKEN_CLASSES.items()}
    setting = f"edited: {'+'.join(classes)}"
    return Measured([f for name, where in groups.items() for f in _figures(found, where, name, setting, cfg.seed)])


def _edits(subject: Subject, classes: tuple[str, ...]) -> dict[str, ReplaceAll]:
    sae = subject.sae
    mean = _train_mean(subject.activations, classes)

    @torch.no_grad()
    def reconstruct(x: Tensor) -> Tensor:
        return sae(x.to(sae.W_dec)).x_hat.to(x.device)

    return {
        SAE_ARM: reconstruct,
        "zero ablation": torch.zeros_like,
        "mean ablation": lambda x: mean.to(x).expand(x.shape),
    }


def _train_mean(activations: Activations, classes: tuple[str, ...]) -> Float[Tensor, " d_in"]:
    """Of training rows of the classes that are edited: the held-out text's own mean would be knowing too much."""
    if activations.is_stored:
        return torch.tensor(activations.moments("train", classes).mean, dtype=torch.float32)
    # statistics are of one window there, and to compute every window again would take as long as the harvest
    n, total = 0, torch.zeros(activations.d_in, dtype=torch.float64)
    for x in activations.rows("train", classes).in_order():
        n, total = n + len(x), total + x.double().sum(dim=0)
        if n >= MEAN_ROWS:
            break
    if n == 0:
        raise UsageError(f"no training rows of {'+'.join(classes)}, whose mean ablation needs: harvest more text")
    return (total / n).float()


def _figures(found: TokenLosses, where: np.ndarray, name: str, setting: str, seed: int) -> list[Figure]:
    if not where.any():
        return []
    documents = found.doc_id[where]
    n_documents = len(np.unique(documents))
    sums = GroupSums(int(documents.max()) + 1)
    shared = {"n": int(where.sum()), "n_of": "predictions", "n_documents": n_documents, "token_class": name}
    arms = {CLEAN: found.clean} | found.edited
    figures = []
    for arm, losses in arms.items():
        sums.add(f"cross_entropy {arm}", documents, losses[where])
        figures.append(_ratio(sums, "cross_entropy", arm, seed, setting, shared))
    for arm, kl in found.kl.items():
        sums.add(f"kl {arm}", documents, kl[where])
        figures.append(_ratio(sums, "kl", arm, seed, setting, shared))
    for arm in ABLATIONS:
        clean, spliced, ablated = (losses[where] for losses in (found.clean, found.edited[SAE_ARM], found.edited[arm]))
        sums.add(f"loss_recovered {arm}", documents, ablated - spliced, ablated - clean)
        sums.add(f"kl_recovered {arm}", documents, (found.kl[arm] - found.kl[SAE_ARM])[where], found.kl[arm][where])
        against = {"setting": f"against {arm}", **shared}
        recovered = loss_recovered(clean.mean(), spliced.mean(), ablated.mean())
        figures.append(figure("loss_recovered", recovered, sums.interval(f"loss_recovered {arm}", seed), **against))
        recovered = loss_recovered(0.0, found.kl[SAE_ARM][where].mean(), found.kl[arm][where].mean())
        figures.append(figure("kl_recovered", recovered, sums.interval(f"kl_recovered {arm}", seed), **against))
    return figures


def _ratio(sums: GroupSums, metric: str, arm: str, seed: int, setting: str, shared: dict) -> Figure:
    name = f"{metric} {arm}"
    return figure(metric, sums.value(name), sums.interval(name, seed), arm=arm, setting=setting, **shared)
