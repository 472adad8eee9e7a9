"""Atoms: how sparsely the dictionary explains held-out rows, how coherent it is under three inner products, and q*.

Every q* says its L0 and R², and stands beside that of random directions at the same L0, which is high of itself.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from activations.progress import Progress, no_progress
from activations.text_order import Placed
from app.evaluation.samples import BATCH, NORMAL, firing, first_rows, heldout_rows
from app.evaluation.subject import NotApplicable, Subject
from sae.atoms import (
    InnerProduct,
    StreamingMoment,
    atomic,
    coherence,
    euclidean,
    mean_centred,
    rip_bound,
    sparse_errors,
    uniqueness,
)
from sae.geometry import CONTROLS
from sae.intervals import ratio_interval
from sae.threads import one_thread
from store.figures import SAE_ARM, Curve, Figure, Measured

MU_QUANTILES = (0.5, 0.9, 0.99, 1.0)
CURVE_QUANTILES = (*np.linspace(0, 0.99, 100).tolist(), 0.995, 0.999, 0.9995, 0.9999, 1.0)
L0_QUANTILES = (0.05, 0.5, 0.95)
NEURONS = "neurons"
"""The control that is not read at the dictionary's L0, but at its own: all coordinates that are not 0."""
OWN_L0 = (SAE_ARM, NEURONS)
HAS_CENTRE = (SAE_ARM, "permuted")
"""Arms that reconstruct about the dictionary's b_dec; the others do about the mean of the training rows."""
OWN = "own encoder"


@dataclass(frozen=True, kw_only=True)
class AtomsConfig:
    """How the atoms measurements are taken, all on rows of the normal class."""

    n_moment_rows: int = 100_000
    """Training rows, as stored, of which the second moment is taken: as many as the paper's."""
    n_rows: int = 16_384
    """Held-out rows, in text order, of which L0 and the encoder's R² are taken."""
    n_pursued: int = 512
    """Of them, evenly spread, those that are reconstructed by OMP from every arm's atoms."""
    most_atoms: int = 64
    """OMP uses as many atoms as the dictionary's median L0, but no more than this."""
    n_firing_rows: int = 32_768
    """Rows of both splits among which a latent that never fires is left out as dead."""
    seed: int = 0
    """Of the controls, and of the pairs where there are too many to look at all."""

    @classmethod
    def quick(cls) -> "AtomsConfig":
        """Fewer rows."""
        return cls(n_moment_rows=16_384, n_rows=4096, n_pursued=256, n_firing_rows=8192)


class Arm(NamedTuple):
    """Directions, and how they are used."""

    name: str
    atoms: Tensor
    l0: Tensor
    """`[n_rows]` active atoms of held-out rows."""
    centre: Tensor
    """What sums of atoms are added to."""


class Pursued(NamedTuple):
    """Rows to be reconstructed, and what of."""

    x: Tensor
    doc_ids: np.ndarray
    most: int
    """Most atoms."""


def measure_atoms(cfg: AtomsConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """Sparse reconstruction, coherence and uniqueness of the dictionary, and of random, permuted and coordinate atoms.

    Raises:
        NotApplicable: there are no held-out rows of the normal class, or fewer than two latents fire.
    """
    heldout = heldout_rows(subject, cfg.n_rows)
    moment = _moment(cfg, subject, progress)
    products = {"euclidean": euclidean, "mean-centred": mean_centred, "atomic": atomic(moment.value())}
    l0, own = _own_encoder(subject, heldout)
    arms = _arms(cfg, subject, heldout.x, l0, moment.mean, progress)
    pursued = _pursued(cfg, heldout, l0)
    parts = [Measured([own, *(figure for arm in arms for figure in _l0(arm))])]
    for arm in progress(arms, len(arms), "measure atoms"):
        rate = _sparse_rate(arm, pursued)
        parts.append(rate)
        said = f"R² {_short(rate.figures[-1].value)} with at most {pursued.most} atoms by OMP"
        parts.extend(_coherence(arm, name, product, said, cfg.seed) for name, product in products.items())
    return Measured([f for part in parts for f in part.figures], [c for part in parts for c in part.curves])


def _short(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"


def _moment(cfg: AtomsConfig, subject: Subject, progress: Progress) -> StreamingMoment:
    rows = first_rows(subject.activations.rows("train", (NORMAL,)), cfg.n_moment_rows)
    moment = StreamingMoment(subject.sae.cfg.d_in)
    for x in progress(rows, cfg.n_moment_rows, "take the second moment", weigh=len):
        moment.update(x)
    if not moment.n_rows:
        raise NotApplicable(f"harvest {subject.activations_run.id} has no training row of class normal: harvest more")
    return moment


@torch.no_grad()
def _own_encoder(subject: Subject, heldout: Placed) -> tuple[Tensor, Figure]:
    """L0 of every row, and R² = 1 − FVU of the dictionary as it is used."""
    l0, errors = [], []
    for x in heldout.x.split(BATCH):
        out = subject.sae(x.to(subject.sae.W_dec))
        l0.append(torch.bincount(out.latents.rows[out.latents.active], minlength=len(x)))
        errors.append((x.double() - out.x_hat.double()).square().sum(dim=1))
    return torch.cat(l0), _r2(SAE_ARM, OWN, torch.cat(errors), heldout.x, heldout.columns["doc_id"])


def _arms(cfg: AtomsConfig, subject: Subject, x: Tensor, l0: Tensor, mean: Tensor, progress: Progress) -> list[Arm]:
    seen = firing(subject, cfg.n_firing_rows, progress)
    atoms = subject.sae.W_dec.detach()
    alive = (seen.counts > 0) & (torch.linalg.vector_norm(atoms, dim=1) > 0)
    if alive.sum() < 2:
        raise NotApplicable(f"{int(alive.sum())} latents fire on {seen.n_rows:,} rows: there are no atoms to compare")
    atoms, generator = atoms[alive], torch.Generator().manual_seed(cfg.seed)
    found = {SAE_ARM: atoms} | {name: control(atoms, generator) for name, control in CONTROLS.items()}
    centres = {name: subject.sae.b_dec.detach() if name in HAS_CENTRE else mean.float() for name in found}
    n_active = {name: (x != 0).sum(dim=1) if name == NEURONS else l0 for name in found}
    return [Arm(name, rows, n_active[name], centres[name]) for name, rows in found.items()]


def _pursued(cfg: AtomsConfig, heldout: Placed, l0: Tensor) -> Pursued:
    """Rows evenly spread over the text, and the number of atoms that the dictionary itself uses."""
    some = np.unique(np.linspace(0, len(heldout.x) - 1, cfg.n_pursued).astype(int))
    most = min(max(1, int(l0.median())), cfg.most_atoms)
    return Pursued(heldout.x[torch.from_numpy(some)], heldout.columns["doc_id"][some], most)


@one_thread()
def _sparse_rate(arm: Arm, pursued: Pursued) -> Measured:
    """R² with at most so many atoms, and for the curve with fewer."""
    most = [2**n for n in range(pursued.most.bit_length()) if 2**n < pursued.most] + [pursued.most]
    figures = [
        _r2(
            arm.name,
            f"at most {k} atoms",
            sparse_errors(pursued.x, arm.atoms, k, arm.centre),
            pursued.x,
            pursued.doc_ids,
        )
        for k in most
    ]
    values = tuple(figure.value if figure.value is not None else math.nan for figure in figures)
    return Measured(
        [figures[-1]], [Curve(plot="sparse_reconstruction", series=arm.name, x=(*map(float, most),), y=values)]
    )


def _r2(arm: str, setting: str, errors: Tensor, x: Tensor, doc_ids: np.ndarray) -> Figure:
    """1 − Σ‖x − x_hat‖² / Σ‖x − mean(x)‖², with its interval over documents."""
    total = (x.double() - x.double().mean(dim=0)).square().sum(dim=1)
    _, document = np.unique(doc_ids, return_inverse=True)
    left, whole = (np.bincount(document, weights=values.numpy()) for values in (errors, total))
    interval = ratio_interval(left, whole)
    return Figure(
        metric="sparse_reconstruction",
        value=float(1 - left.sum() / whole.sum()) if whole.sum() > 0 else None,
        n=len(x),
        n_of="rows",
        token_class=NORMAL,
        arm=arm,
        setting=setting,
        low=1 - interval.high if interval else None,
        high=1 - interval.low if interval else None,
        note=f"bootstrap over {len(whole)} documents" if interval else "too few documents for an interval",
    )


def _l0(arm: Arm) -> list[Figure]:
    """How many atoms a row has, of the arms that have an L0 of their own."""
    if arm.name not in OWN_L0:
        return []
    common = {"n": len(arm.l0), "n_of": "rows", "token_class": NORMAL, "arm": arm.name}
    values = {q: arm.l0.double().quantile(q, interpolation="higher").item() for q in L0_QUANTILES}
    return [Figure(metric="l0", value=value, setting=f"q={q:g}", **common) for q, value in values.items()]


def _coherence(arm: Arm, name: str, product: InnerProduct, said: str, seed: int) -> Measured:
    """Angles, coherence, RIP bound and q* under one inner product."""
    found = coherence(arm.atoms, product, seed)
    unique = uniqueness(found, arm.l0, CURVE_QUANTILES)
    drawn = "" if found.is_exact else f"{len(found.cosines):,} of {found.n_pairs:,} pairs drawn, the maximum exact"
    angle, spread = found.angles()

    def figure(metric: str, value: float, setting: str = name, note: str = drawn) -> Figure:
        return Figure(
            metric=metric, value=value, n=found.n_pairs, n_of="pairs", arm=arm.name, setting=setting, note=note
        )

    said = f"L0 median {unique.l0_median:g}, at q* {unique.l0_at_q_star:g}; {said}"
    figures = [
        figure("angle_mean", angle),
        figure("angle_sd", spread),
        *(figure("coherence", found.quantile(q), f"{name} q={q:g}") for q in MU_QUANTILES),
        figure("rip_bound", rip_bound(unique.l0_median, found.maximum), note=f"K = L0 median {unique.l0_median:g}"),
        figure("uniqueness", unique.q_star, note=f"{said}; {drawn}" if drawn else said),
    ]
    curves = [Curve(plot="coherence", series=f"{name}: {arm.name}", x=CURVE_QUANTILES, y=unique.mu)]
    if arm.name in OWN_L0 and product is euclidean:  # the bound is the same under every inner product
        bound = tuple(min(1.0, value) for value in unique.bound)
        curves.append(Curve(plot="coherence", series=f"bound at its L0: {arm.name}", x=CURVE_QUANTILES, y=bound))
    return Measured(figures, curves)
