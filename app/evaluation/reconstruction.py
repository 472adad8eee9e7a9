"""Part `reconstruction`: what a dictionary keeps of held-out rows, for each token class; which latents never fire."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.progress import Progress, no_progress
from activations.reader import Activations, Labelled
from app.evaluation.subject import Subject
from app.evaluation.withheld import FEWEST, NO_INTERVAL, figure
from sae.base import SAEOutput
from sae.intervals import GroupSums
from sae.metrics import DENSE_DENSITY, StreamingEvaluation, StreamingFiring, row_cosine, row_l0, row_l2_ratio
from store.figures import Curve, Figure, Measured
from store.shards import TOKEN_CLASSES

ALL_BUT_FIRST = "all_but_first"
"""The one group that mixes classes: never shown without the classes it is made of."""
PER_DECADE = 4
"""Bins of the density histogram per power of ten."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What the figures over rows are taken on."""

    dead_over: Literal["all", "heldout"] = "all"
    """Rows on which a latent must fire once not to be dead: `all` that were harvested, or only those `heldout`."""
    seed: int = 0
    """Of the bootstrap over documents."""

    def __post_init__(self) -> None:
        if self.dead_over not in ("all", "heldout"):
            raise ValueError(f"dead_over={self.dead_over!r} is not known: choose all or heldout")

    @classmethod
    def quick(cls) -> "ReconstructionConfig":
        """Held-out rows only."""
        return cls(dead_over="heldout")


@dataclass
class ClassFound:
    """What was seen of one token class."""

    stream: StreamingEvaluation
    sums: GroupSums
    mean: Float[Tensor, " d_in"]
    """What the variance of a document's rows is taken about for the interval: the mean of all of them."""
    documents: set[int] = field(default_factory=set)

    def update(self, rows: Labelled) -> SAEOutput:
        """Add rows."""
        out = self.stream.update(rows.x)
        self.note(rows, out)
        return out

    def note(self, rows: Labelled, out: SAEOutput) -> None:
        """Add what the intervals are made from."""
        x, x_hat = rows.x.double(), out.x_hat.double().cpu()
        terms: dict[str, tuple[Tensor, Tensor | None]] = {
            "fvu": ((x - x_hat).square().sum(1), (x - self.mean).square().sum(1)),
            "cosine": (row_cosine(x, x_hat), None),
            "l2_ratio": (row_l2_ratio(x, x_hat), None),
            "relative_bias": (x_hat.square().sum(1), (x * x_hat).sum(1)),
            "l0": (row_l0(out.latents).double().cpu(), None),
        }
        for name, (above, below) in terms.items():
            self.sums.add(name, rows.doc_id, above.numpy(), None if below is None else below.numpy())
        self.documents.update(np.unique(rows.doc_id).tolist())


def measure_reconstruction(cfg: ReconstructionConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """FVU, cosine, norms, L0 and bits of every class of held-out rows; density and dead latents over `dead_over`."""
    activations = subject.activations
    means = _heldout_means(activations)
    found = {name: _nothing_yet(subject, means[name]) for name in TOKEN_CLASSES}
    everything = _nothing_yet(subject, means[ALL_BUT_FIRST])
    firing = StreamingFiring(subject.sae.cfg.d_sae)
    rows = activations.rows("heldout" if cfg.dead_over == "heldout" else "all", tuple(TOKEN_CLASSES))
    for some in progress(rows.by_class(), len(rows), "reconstruct", weigh=lambda rows: len(rows.x)):
        if some.heldout:
            out = found[some.token_class].update(some)
            everything.note(some, out)
            latents = out.latents
        else:
            with torch.no_grad():
                latents = subject.sae.encode(some.x.to(subject.sae.W_dec))
        firing.update(latents)
    for one in found.values():
        everything.stream.merge(one.stream)
    figures = [f for name, one in found.items() for f in _of_class(name, one, cfg.seed)]
    figures += _of_class(ALL_BUT_FIRST, everything, cfg.seed)
    trained = StreamingFiring(subject.sae.cfg.d_sae)
    for name in subject.run_classes:
        trained.merge(found[name].stream.firing)
    curves = _curves(firing, trained, "+".join(subject.run_classes))
    return Measured(figures + _of_latents(firing, trained, subject), curves)


def _nothing_yet(subject: Subject, mean: Float[Tensor, " d_in"]) -> ClassFound:
    n_documents = len(subject.activations.heldout_docs)
    return ClassFound(StreamingEvaluation(subject.sae), GroupSums(n_documents), mean)


def _heldout_means(activations: Activations) -> dict[str, Float[Tensor, " d_in"]]:
    """Of held-out rows by class, and of all of them, in a pass of its own: the harvest's statistics count first
    positions among sinks, which dwarf all others, and know one window alone where no vector is stored."""
    counts, sums = dict.fromkeys(TOKEN_CLASSES, 0), {name: np.zeros(activations.d_in) for name in TOKEN_CLASSES}
    for rows in activations.rows("heldout", tuple(TOKEN_CLASSES)).by_class():
        counts[rows.token_class] += len(rows.x)
        sums[rows.token_class] += rows.x.double().sum(dim=0).numpy()
    n_rows, total = sum(counts.values()), np.sum(list(sums.values()), axis=0)
    means = {name: sums[name] / max(counts[name], 1) for name in TOKEN_CLASSES} | {
        ALL_BUT_FIRST: total / max(n_rows, 1)
    }
    return {name: torch.from_numpy(np.asarray(mean)) for name, mean in means.items()}


def _of_class(name: str, found: ClassFound, seed: int) -> list[Figure]:
    value = found.stream.value()
    shared = {"n_of": "rows", "token_class": name, "n_documents": len(found.documents)}
    # rows of which one has no direction are left out of these two, and counted
    over = {"cosine": found.stream.cosine, "l2_ratio": found.stream.l2_ratio}
    figures = []
    for metric in ("fvu", "cosine", "l2_ratio", "relative_bias", "l0"):
        n, left_out = (over[metric].n, over[metric].n_undefined) if metric in over else (value.n_rows, 0)
        one = figure(metric, getattr(value, metric), found.sums.interval(metric, seed), n=n, **shared)
        figures.append(
            replace(one, note=f"{one.note}; {left_out:,} rows without a direction left out") if left_out else one
        )
    whole = {"n": value.n_rows, **shared}
    for share in (0.05, 0.5, 0.95):
        figures.append(figure("l0_quantile", _quantile(value.rows_by_l0, share), None, setting=f"q={share}", **whole))
    if value.bits_per_row is not None:
        figures.append(figure("bits_per_token", value.bits_per_row, None, **whole))
    return figures


def _quantile(counts: Tensor, share: float) -> float | None:
    """Of what was counted 0, 1, 2 … times: the smallest number that `share` of all are not above."""
    total = int(counts.sum())
    if not total:
        return None
    return float(torch.searchsorted(counts.cumsum(0), torch.tensor(max(1, share * total))))


def _of_latents(firing: StreamingFiring, trained: StreamingFiring, subject: Subject) -> list[Figure]:
    """Over all rows that were looked at, and over held-out rows of the classes trained on."""
    d_sae, classes = subject.sae.cfg.d_sae, "+".join(subject.run_classes)
    dead = int((firing.counts == 0).sum())
    dense = float((trained.counts > DENSE_DENSITY * trained.n_rows).double().mean()) if trained.n_rows else None
    everything = {"n": firing.n_rows, "token_class": ALL_BUT_FIRST}
    return [
        _of_counts("n_dead", float(dead), **everything),
        _of_counts("dead_fraction", dead / d_sae, **everything),
        _of_counts(
            "dense_fraction", dense, setting=f"density > {DENSE_DENSITY}", n=trained.n_rows, token_class=classes
        ),
    ]


def _of_counts(metric: str, value: float | None, *, n: int, token_class: str, setting: str = "") -> Figure:
    note = "no interval: more rows make fewer dead" if "dead" in metric else NO_INTERVAL
    if n < FEWEST:
        value, note = None, f"withheld: {n} rows, fewer than {FEWEST}"
    return Figure(metric=metric, value=value, n=n, n_of="rows", token_class=token_class, setting=setting, note=note)


def _curves(firing: StreamingFiring, trained: StreamingFiring, classes: str) -> list[Curve]:
    curves = []
    if firing.n_rows and (firing.counts > 0).any():
        density = np.log10(firing.counts[firing.counts > 0].double().numpy() / firing.n_rows)
        edges = np.arange(np.floor(density.min() * PER_DECADE), 1) / PER_DECADE
        counts, _ = np.histogram(density, edges)
        curves.append(_bars("density", f"latents, over {ALL_BUT_FIRST}", (edges[:-1] + edges[1:]) / 2, counts))
    rows = trained.rows_by_l0.numpy()
    if rows.any():
        last = int(rows.nonzero()[0][-1]) + 1
        width = max(1, -(-last // 64))
        counts = np.add.reduceat(rows[:last], np.arange(0, last, width))
        curves.append(
            _bars("l0", f"held-out tokens, {classes}", np.arange(len(counts)) * width + (width - 1) / 2, counts)
        )
    return curves


def _bars(plot: str, series: str, x: np.ndarray, y: np.ndarray) -> Curve:
    return Curve(plot=plot, series=series, x=tuple(map(float, x)), y=tuple(map(float, y)))
