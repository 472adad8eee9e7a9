"""What an ITDA keeps of held-out rows, under matching pursuit and OMP, beside as many random activations under both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from activations.progress import Progress, no_progress
from activations.reader import Activations
from activations.text_order import in_text_order
from app.evaluation.subject import NotApplicable, Subject
from app.evaluation.withheld import FEWEST
from app.itda_training import labelled, recorded_job
from sae.decoder_match import repeated
from sae.intervals import ratio_interval
from sae.itda import ITDA
from sae.itda_build import build_random
from sae.itda_overlap import jaccard
from sae.metrics import row_cosine
from sae.pursuit import Code, mp, omp
from store.errors import UsageError
from store.figures import SAE_ARM, Figure, Measured
from store.run import find_run
from store.shards import TOKEN_CLASSES

RANDOM = "random activations"
CHANCE = "chance"
BY_DOCUMENT = "95 % interval over documents"
Pursuit = Callable[[Tensor, Tensor, int], Code]
ARMS: dict[str, tuple[bool, Pursuit]] = {
    SAE_ARM: (False, mp),
    "omp": (False, omp),
    RANDOM: (True, mp),
    f"{RANDOM}, omp": (True, omp),
}
"""Of each arm, whether its atoms are the random ones, and what finds the coefficients."""


@dataclass(frozen=True, kw_only=True)
class ItdaConfig:
    """How much to measure an ITDA on."""

    n_rows: int = 2048
    """Held-out rows, of the token classes it was built from. Over 3,258 atoms of width 576, OMP takes half a minute of
    one core for them, and there are two such arms."""
    among: int = 16_384
    """They are spread evenly over so many, from the start of the text."""
    same_cos: float = 0.999
    """An atom repeats an earlier one where their |cosine| reaches this."""
    seed: int = 0
    """Of the control's draw; with the seed that the dictionary was built with, the control is the same."""

    @classmethod
    def quick(cls) -> "ItdaConfig":
        """A few documents."""
        return cls(n_rows=256, among=4096)


class Rows(NamedTuple):
    """Held-out rows."""

    x: Tensor
    doc: np.ndarray
    """`[n]` the document of each."""
    groups: dict[str, Tensor]
    """`[n]` bool for each token class there is, and for all together where there are several."""


class Errors(NamedTuple):
    """Of each row, under one arm."""

    squared: Tensor
    """‖x − x_hat‖²."""
    cosine: Tensor
    """Of x and x_hat; NaN where either is zero."""
    pursued_cosine: Tensor
    """The same less the mean that is not pursued; what `target_cos` is about."""
    n_used: Tensor
    """Atoms."""
    n_negative: Tensor
    """Of them, with a coefficient below 0."""


def measure_itda(cfg: ItdaConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """Reconstruction under MP (arm `sae`) and OMP, of the dictionary and of its control.

    Raises:
        NotApplicable: the dictionary is no ITDA.
        UsageError: no held-out row matches, or the harvest that it was built on is gone.
    """
    itda = subject.sae
    if not isinstance(itda, ITDA):
        variant = subject.sae_run.config["variant"]
        raise NotApplicable(f"`itda` measures dictionaries of activations, and {variant} {subject.name} is trained")
    rows = heldout(subject, cfg)
    control = random_control(subject, cfg.seed)
    errors = {}
    for arm in progress(ARMS, len(ARMS), "pursue held-out rows"):
        is_random, pursue = ARMS[arm]
        errors[arm] = _errors(rows.x, control if is_random else itda, pursue)
    figures = [f for group in rows.groups for f in _reconstruction(rows, group, errors, itda.cfg.target_cos)]
    for arm, dictionary in {SAE_ARM: itda, RANDOM: control}.items():
        figures += _atoms(dictionary, arm, cfg.same_cos)
    return Measured([*figures, *_overlap(itda, control)])


def heldout(subject: Subject, cfg: ItdaConfig) -> Rows:
    """Held-out rows of the classes that the dictionary was built from, in text order.

    Raises:
        UsageError: there are none.
    """
    wanted = subject.activations.rows("heldout", subject.run_classes)
    found = next(in_text_order(wanted, cfg.among, cfg.among), None)
    if found is None:
        raise UsageError(
            f"harvest {subject.activations_run.id} has no held-out row of class {' or '.join(subject.run_classes)}: "
            "harvest more text"
        )
    spread = np.unique(np.linspace(0, len(found.x) - 1, cfg.n_rows).round().astype(int))
    doc_id, code = (found.columns[name][spread] for name in ("doc_id", "token_class"))
    of_class = {name: torch.from_numpy(code == TOKEN_CLASSES[name]) for name in subject.run_classes}
    groups = {name: these for name, these in of_class.items() if these.any()}
    if len(groups) > 1:
        groups["+".join(groups)] = torch.ones(len(code), dtype=torch.bool)
    return Rows(found.x[torch.from_numpy(spread)], doc_id, groups)


def random_control(subject: Subject, seed: int) -> ITDA:
    """As many random activations, from the rows that the subject's ITDA could choose from.

    Raises:
        UsageError: the harvest that it was built on is gone.
    """
    itda, run, job = subject.sae, subject.activations_run, recorded_job(subject.sae_run)
    assert isinstance(itda, ITDA), "only an ITDA has this control"
    built_on = subject.sae_run.inputs["activations"]
    if run.id != built_on:
        run = find_run(subject.sae_run.root, built_on, "activations")
    rows = Activations(run, job.hook_point).rows("train", job.classes)
    return build_random(labelled(rows, job), itda, torch.Generator().manual_seed(seed))


def _errors(x: Tensor, itda: ITDA, pursue: Pursuit) -> Errors:
    code = pursue(x - itda.b_dec, itda.W_dec, itda.cfg.k)
    x_hat = code.decode(itda.W_dec) + itda.b_dec
    squared = (x.double() - x_hat.double()).square().sum(dim=1)
    # the target is for what is pursued, which is x less the mean where there is one
    reached = row_cosine(x - itda.b_dec, x_hat - itda.b_dec)
    return Errors(squared, row_cosine(x, x_hat), reached, (code.values != 0).sum(dim=1), (code.values < 0).sum(dim=1))


def _reconstruction(rows: Rows, group: str, errors: dict[str, Errors], target_cos: float) -> Iterator[Figure]:
    """Every arm's figures for one group of rows."""
    these = rows.groups[group]
    x = rows.x[these].double()
    spread, doc = (x - x.mean(dim=0)).square().sum(dim=1), rows.doc[these.numpy()]
    of_group = {arm: Errors(*(column[these] for column in found)) for arm, found in errors.items()}
    for arm, found in of_group.items():
        ratio = partial(_ratio, doc, token_class=group, arm=arm)
        yield ratio(found.squared, spread, metric="fvu")
        yield ratio(found.cosine, metric="cosine")
        yield ratio(found.n_used, metric="l0")
        # a row without a reconstruction has no cosine, and misses the target
        yield ratio(found.pursued_cosine >= target_cos, metric="target_reached", setting=f"cosine >= {target_cos}")
        yield ratio(found.n_negative, found.n_used, metric="negative_coefficients")
    for arm, other in {SAE_ARM: RANDOM, "omp": f"{RANDOM}, omp"}.items():
        more = of_group[arm].squared - of_group[other].squared
        yield _ratio(doc, more, spread, metric="fvu_minus_random", token_class=group, arm=arm)


def _ratio(doc: np.ndarray, above: Tensor, below: Tensor | None = None, **fields: str) -> Figure:
    """Σ above / Σ below over rows; without `below` the mean of the finite values."""
    finite = above.isfinite()
    numerators = above.double().masked_fill(~finite, 0).numpy()
    # a row that is left out is left out on both sides
    denominators = (finite if below is None else below.masked_fill(~finite, 0)).double().numpy()
    _, which = np.unique(doc, return_inverse=True)
    interval = ratio_interval(np.bincount(which, numerators), np.bincount(which, denominators))
    low, high = interval or (None, None)
    total = denominators.sum()
    value = float(numerators.sum() / total) if total else None
    note = "nothing to divide by" if value is None else BY_DOCUMENT if interval else "too few documents for an interval"
    n = int(finite.sum())
    if n < FEWEST:
        value, low, high, note = None, None, None, f"withheld: {n} rows, fewer than {FEWEST}"
    elif n < len(doc):
        note += f"; {len(doc) - n} rows that are not finite left out"
    return Figure(value=value, n=n, n_of="rows", low=low, high=high, note=note, **fields)


def _atoms(itda: ITDA, arm: str, same_cos: float) -> list[Figure]:
    n = itda.cfg.d_sae
    n_repeated = int(repeated(itda.W_dec, same_cos).sum())
    return [
        Figure(metric="n_atoms", value=float(n), n=itda.cfg.n_tokens, n_of="rows to choose from", arm=arm),
        Figure(
            metric="repeated_atoms", value=n_repeated / n, n=n, n_of="atoms", arm=arm, setting=f"|cosine| >= {same_cos}"
        ),
    ]


def _overlap(itda: ITDA, control: ITDA) -> list[Figure]:
    """Of the tokens that the dictionary chose and those that were drawn: chance, and so what is expected of it."""
    found = jaccard(itda, control)
    of_control = {"jaccard": found.jaccard, "jaccard_adjusted": found.adjusted}
    told = [(metric, RANDOM, value) for metric, value in of_control.items()]
    return [
        Figure(metric=metric, value=value, n=2 * itda.cfg.d_sae, n_of="atoms", arm=arm, setting="with the dictionary")
        for metric, arm, value in [*told, ("jaccard", CHANCE, found.chance)]
    ]
