"""Choosing the atoms of an ITDA: every row that the atoms so far reconstruct badly becomes one.

    for each batch in the stream's order:  x_hat = MP(x, D, k);  append x/‖x‖ of every row with cos(x, x_hat) < target

Leask, Nanda & Al Moubayed 2025, arXiv:2505.17769, algorithm 2. Their threshold τ on the squared error of normalised
rows is the cosine bound τ = (2 − 2·target_cos) / d_in. A batch's rows are all judged by the atoms before it, so larger
batches find more of them that resemble each other; `dedup_cos` drops the closest. Early tokens are favoured. Whether
atoms chosen so reconstruct better than as many random rows is to be measured each time: `build_random` is the control.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.itda import ITDA, ITDAConfig, Provenance, check_cosine
from sae.metrics import row_cosine
from sae.pursuit import GRAM_VALUES, mp

MIN_NORM = 1e-12
"""Shorter rows count as zero: they have no direction to tell."""
SeedRule = Literal["first", "frequent"]
Labelled = tuple[Tensor, Provenance]
"""Rows [n, d_in], and which token each is."""


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How atoms are chosen; how many rows make a batch is the stream's business."""

    k: int = 40
    """Steps of matching pursuit a row."""
    target_cos: float = 0.9
    """A row whose cosine with its reconstruction is below this becomes an atom: higher means more atoms."""
    max_atoms: int | None = None
    """No more atoms than this; None for as many as are found."""
    seed_rule: SeedRule = "first"
    """Which rows are taken before any is judged: the `first`, or the most `frequent` of a batch, equals counted."""
    n_seed: int | None = None
    """How many of those; None means d_in, as the paper's code has it."""
    dedup_cos: float = 0.999
    """A row is left out if its |cosine| with an atom, or with an earlier new one, reaches this."""
    centre: bool = False
    """Subtract a fixed mean first. Residual streams share a large mean, on which pursuit wastes steps; without it atoms
    are no longer activations themselves, and this is no longer the paper's method."""

    def __post_init__(self) -> None:
        for name in ("k", "max_atoms", "n_seed"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is not a count: choose {name} >= 1")
        check_cosine("target_cos", self.target_cos)
        if not 0 < self.dedup_cos <= 1:
            raise ValueError(f"dedup_cos={self.dedup_cos} is not a positive cosine: choose 0 < dedup_cos <= 1")
        if self.seed_rule not in ("first", "frequent"):
            raise ValueError(f"seed_rule={self.seed_rule!r} is not known: choose 'first' or 'frequent'")


class BuildStep(NamedTuple):
    """One batch."""

    step: int
    """Batches so far, from 1."""
    n_rows: int
    """Rows of this one."""
    n_tokens: int
    """Rows so far."""
    n_atoms: int
    """Atoms now."""
    n_added: int
    """Of them new."""
    n_zero: int
    """Rows of this batch that are zero and have no direction."""
    cosine: float | None
    """Mean cosine of this batch's rows with their reconstruction, seeds added but nothing else; None where none is
    reconstructed: all are zero, or there can be no more atoms."""
    l0: float | None
    """Mean number of atoms in those reconstructions."""


class Builder:
    """A dictionary that grows; `itda` is what it has come to, whenever one stops.

    builder = Builder(cfg)
    for step in builder.grow(stream): log(step)
    itda = builder.itda()
    """

    def __init__(self, cfg: BuildConfig, mean: Float[Tensor, " d_in"] | None = None) -> None:
        """Nothing is read yet. `mean` is what `cfg.centre` subtracts, and given if and only if that is set."""
        if cfg.centre != (mean is not None):
            wrong = "subtracts a mean: pass it" if cfg.centre else "subtracts nothing: pass no mean"
            raise ValueError(f"centre={cfg.centre} {wrong}")
        self.cfg, self._mean = cfg, mean
        self._atoms: Tensor | None = None
        self._gram: Tensor | None = None
        self._places: Provenance | None = None
        self._digest = hashlib.sha256()
        self._n_tokens, self._n_offered = 0, 0

    @property
    def n_atoms(self) -> int:
        """Atoms so far."""
        return 0 if self._atoms is None else len(self._atoms)

    def grow(self, stream: Iterable[Labelled]) -> Iterator[BuildStep]:
        """Read the stream to its end, yielding after every batch; where the cap is reached, rows are only counted.

        Raises:
            ValueError: a batch is not [n, d_in] with one place a row, or has values that are not finite.
        """
        for step, (x, places) in enumerate(stream, 1):
            self._check(step, x, places)
            before = self.n_atoms
            self._count(places)
            cosines, l0, n_zero = self._learn(x if x.dtype == torch.float64 else x.float(), places)
            cosine = cosines.mean().item() if len(cosines) else None
            yield BuildStep(step, len(x), self._n_tokens, self.n_atoms, self.n_atoms - before, n_zero, cosine, l0)

    def itda(self) -> ITDA:
        """The dictionary so far.

        Raises:
            ValueError: there is no atom.
        """
        if self._atoms is None or self._places is None:
            raise ValueError(f"no atom was found in {self._n_tokens} rows: pass a stream with rows that are not zero")
        cfg = ITDAConfig(
            d_in=self._atoms.shape[1],
            d_sae=len(self._atoms),
            k=self.cfg.k,
            target_cos=self.cfg.target_cos,
            centre=self.cfg.centre,
            n_tokens=self._n_offered,
            stream=self._digest.hexdigest(),
        )
        return ITDA.from_atoms(cfg, self._atoms, self._places, self._mean)

    def _check(self, step: int, x: Tensor, places: Provenance) -> None:
        d_in = x.shape[-1] if self._atoms is None else self._atoms.shape[1]
        if x.ndim != 2 or x.shape[1] != d_in or any(len(column) != len(x) for column in places):
            shapes = [len(column) for column in places]
            raise ValueError(
                f"batch {step} has rows of shape {tuple(x.shape)} and {shapes} places: pass [n, {d_in}] and n of each"
            )
        if n_bad := int((~x.isfinite().all(dim=1)).sum()):
            raise ValueError(f"{n_bad} rows of batch {step} have NaN or infinite values: drop or repair them")

    def _count(self, places: Provenance) -> None:
        """Take the rows into the stream's hash, which does not depend on where batches end."""
        labels = torch.stack([places.seq, places.pos, places.token_id], dim=1).to("cpu", torch.int64).contiguous()
        self._digest.update(labels.numpy().tobytes())
        self._n_tokens += len(labels)
        self._n_offered = self._n_offered if self._is_full else self._n_tokens

    @property
    def _is_full(self) -> bool:
        return self.cfg.max_atoms is not None and self.n_atoms >= self.cfg.max_atoms

    def _learn(self, x: Tensor, places: Provenance) -> tuple[Float[Tensor, " n"], float | None, int]:
        """Add this batch's atoms; the cosines and the L0 by which it was judged, and its rows of zeros."""
        x = x if self._mean is None else x - self._mean.to(x)
        has_direction = torch.linalg.vector_norm(x, dim=1) > MIN_NORM
        x, places, n_zero = x[has_direction], places.take(has_direction), int((~has_direction).sum())
        if not len(x) or self._is_full:
            return x.new_zeros(0), None, n_zero
        self._seed(x, places)
        atoms = self._known(x)
        code = mp(x, atoms, self.cfg.k, self._gram)
        # a row orthogonal to all atoms has a reconstruction of zero and no cosine: as bad as can be
        cosines = row_cosine(x, code.decode(atoms)).nan_to_num(0.0)
        missed = cosines < self.cfg.target_cos
        self._add(x[missed], places.take(missed), self.cfg.max_atoms)
        return cosines, (code.values != 0).sum(dim=1).double().mean().item(), n_zero

    def _seed(self, x: Tensor, places: Provenance) -> None:
        """Take rows unjudged until there are `n_seed` atoms, over several batches if need be."""
        n_seed = min(self.cfg.n_seed or x.shape[1], self.cfg.max_atoms or x.shape[1] + len(x))
        if self.n_atoms < n_seed:
            order = most_frequent(x) if self.cfg.seed_rule == "frequent" else torch.arange(len(x), device=x.device)
            self._add(x[order], places.take(order), n_seed)

    def _known(self, x: Tensor) -> Float[Tensor, "n_atoms d_in"]:
        """The atoms so far, none at first."""
        return x[:0] if self._atoms is None else self._atoms

    def _add(self, x: Tensor, places: Provenance, limit: int | None) -> None:
        """Append the directions of the rows that are no twins, in order, up to `limit` atoms in all."""
        directions, atoms = F.normalize(x, dim=1), self._known(x)
        new = is_new(directions, atoms, self.cfg.dedup_cos).nonzero().squeeze(1)
        new = new if limit is None else new[: max(0, limit - len(atoms))]
        self._atoms = torch.cat([atoms, directions[new]])
        self._gram = _grown_gram(self._gram, self._atoms, len(atoms))
        here = places.take(new)
        self._places = here if self._places is None else self._places.followed_by(here)


def build(
    stream: Iterable[Labelled], cfg: BuildConfig | None = None, mean: Float[Tensor, " d_in"] | None = None
) -> ITDA:
    """The dictionary of a whole stream: `Builder` without the steps. The same stream gives the same dictionary."""
    builder = Builder(cfg or BuildConfig(), mean)
    for _ in builder.grow(stream):
        pass
    return builder.itda()


def build_random(stream: Iterable[Labelled], like: ITDA, generator: torch.Generator) -> ITDA:
    """The control: as many atoms as `like` has, drawn evenly from the rows that it could choose from.

    Args:
        stream: the one that `like` was built on, from its start.
        like: gives the number of atoms, and everything but the choice.
        generator: of the draw; on the CPU.
    """
    n, n_left = like.cfg.d_sae, like.cfg.n_tokens
    # the rows of the n smallest of independent keys are an even draw, whatever their number
    keys, rows, drawn = torch.empty(0), like.W_dec[:0], Provenance(*(column[:0] for column in like.places))
    for x, places in stream:
        here = x[:n_left].to(like.W_dec) - like.b_dec
        n_left -= len(here)
        key = torch.rand(len(here), generator=generator)
        key[torch.linalg.vector_norm(here, dim=1).cpu() <= MIN_NORM] = torch.inf
        candidates = key < (keys.max() if len(keys) == n else torch.inf)
        keys, rows = torch.cat([keys, key[candidates]]), torch.cat([rows, here[candidates.to(here.device)]])
        drawn = drawn.followed_by(places.take(candidates.nonzero().squeeze(1)))
        best = keys.argsort(stable=True)[:n]
        keys, rows, drawn = keys[best], rows[best.to(rows.device)], drawn.take(best)
        if n_left <= 0:
            break
    if len(rows) < n:
        raise ValueError(f"the stream has {len(rows)} usable rows for {n} atoms: pass the one `like` was built on")
    return ITDA.from_atoms(like.cfg, F.normalize(rows, dim=1), drawn, like.b_dec)


def is_new(
    directions: Float[Tensor, "n d_in"], atoms: Float[Tensor, "n_atoms d_in"], dedup_cos: float
) -> Bool[Tensor, " n"]:
    """Which unit rows are twins (|cosine| ≥ dedup_cos) of no atom and of no earlier row that is itself new."""
    is_twin = (directions @ atoms.t()).abs_() >= dedup_cos
    candidate = ~is_twin.any(dim=1)
    # [i, j]: row i comes before row j and is its twin
    before = ((directions @ directions.t()).abs_() >= dedup_cos).triu(1)
    new = candidate
    # row j is settled once all its earlier twins are, so this ends at the greedy choice
    while not torch.equal(new, found := candidate & ~(before & new.unsqueeze(1)).any(dim=0)):
        new = found
    return new


def most_frequent(x: Float[Tensor, "n d_in"]) -> Int[Tensor, " distinct"]:
    """The first of each set of equal rows, larger sets before smaller ones, earlier before later."""
    _, which, counts = torch.unique(x, dim=0, return_inverse=True, return_counts=True)
    numbers = torch.arange(len(x), device=x.device)
    first = torch.full_like(counts, len(x)).scatter_reduce_(0, which, numbers, "amin")
    by_place = first.argsort()
    return first[by_place[counts[by_place].argsort(descending=True, stable=True)]]


def _grown_gram(gram: Tensor | None, atoms: Tensor, n_known: int) -> Tensor | None:
    """The Gram matrix with the products of the atoms after the first `n_known`; None once it is too large."""
    if len(atoms) ** 2 > GRAM_VALUES:
        return None
    if gram is not None and len(atoms) == n_known:
        return gram
    fresh = atoms[n_known:] @ atoms.t()
    if gram is None or not n_known:
        return fresh
    return torch.cat([torch.cat([gram, fresh[:, :n_known].t()], dim=1), fresh])
