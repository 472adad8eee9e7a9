"""One logistic probe: features standardised on the training texts, L2 strength chosen by cross-validation among them.

min_w C Σ_i c_i log(1 + exp(−y_i (w·z_i + b))) + ‖w‖² / 2, z = (x − mean) / sd, both classes weighing the same. Folds
are whole groups of texts. Nothing here is ever given a test text.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

Values = np.ndarray | sparse.csr_array
"""`[n_texts, n_features]`, dense or sparse."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""C: the larger, the freer the probe. Features are standardised and the loss is a sum over texts."""
FEW, FEW_STRENGTH = 16, 1.0
"""A probe of so few features takes this C, as in SAEBench: with hundreds of texts it hardly matters."""
MIDDLE_STRENGTH = 1e-2
"""The C of a probe whose training texts leave no fold to choose one by: the smallest would cripple it unseen."""
N_FOLDS = 3
MAX_STEPS = 200
SMALL = 1e-12
"""Of the largest: what is below is rounding."""


@dataclass(frozen=True)
class Probe:
    """A linear probe in units of its features."""

    columns: np.ndarray
    """`[k]` the features it reads."""
    weight: np.ndarray
    """`[k]`"""
    bias: float
    strength: float
    """The C that was chosen."""

    def scores(self, values: Values) -> np.ndarray:
        """`[n_texts]`, positive where it says yes."""
        return np.asarray(values[:, self.columns] @ self.weight) + self.bias


class Prepared(NamedTuple):
    """Training texts' features, standardised, and turned into as few as there are texts where they are more."""

    z: np.ndarray
    """`[n_texts, n]`"""
    back: np.ndarray | None
    """`[n, k]` from a weight on z to one on the standardised features; None where they are z."""
    columns: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def prepare(values: Values, columns: np.ndarray | None = None) -> Prepared:
    """Features of training texts.

    An L2 probe's weight is a sum of the texts' features, so turning those into the space the texts span changes
    nothing and is exact; it makes thousands of latents no dearer than hundreds of texts.

    Args:
        values: `[n_texts, n_features]`.
        columns: the features that may be read; all of them if None.
    """
    every: Any = values
    columns = np.arange(every.shape[1]) if columns is None else np.asarray(columns)
    part = every[:, columns]
    dense = np.asarray(part.toarray() if sparse.issparse(part) else part, float)
    mean, sd = dense.mean(axis=0), dense.std(axis=0)
    sd = np.where(sd > SMALL * np.abs(mean), sd, 1.0)
    sd[sd == 0] = 1.0
    z = (dense - mean) / sd
    if z.shape[1] <= z.shape[0]:
        return Prepared(z, None, columns, mean, sd)
    squares, turn = np.linalg.eigh(z @ z.T)
    kept = squares > SMALL * squares[-1]
    lengths = np.sqrt(squares[kept])
    return Prepared(turn[:, kept] * lengths, (turn[:, kept] / lengths).T @ z, columns, mean, sd)


def fit_probe(
    values: Values, wanted: np.ndarray, groups: np.ndarray, columns: np.ndarray | None = None, seed: int = 0
) -> Probe:
    """A probe on training texts.

    Args:
        values: `[n_texts, n_features]`.
        wanted: `[n_texts]` boolean, both values in it.
        groups: `[n_texts]`, never cut by a fold.
        columns: the features it may read; all of them if None.
        seed: of the folds.
    """
    return fit_prepared(prepare(values, columns), wanted, groups, seed)


def fit_prepared(features: Prepared, wanted: np.ndarray, groups: np.ndarray, seed: int = 0) -> Probe:
    """`fit_probe` on features that several probes share."""
    from sklearn import config_context  # slow to import, and needed only for probes

    with config_context(assume_finite=True, skip_parameter_validation=True):
        strength = _chosen(features.z, wanted, groups, seed)
        model = _fitted(features.z, wanted, strength)
    standardised = model.coef_[0] if features.back is None else model.coef_[0] @ features.back
    weight = standardised / features.sd
    return Probe(features.columns, weight, float(model.intercept_[0] - features.mean @ weight), strength)


def out_of_fold(features: Prepared, wanted: np.ndarray, groups: np.ndarray, seed: int, strength: float) -> np.ndarray:
    """Scores `[n_texts]` of training texts by probes that were not trained on them; −inf where no usable fold does."""
    from sklearn import config_context

    out = np.full(len(wanted), -np.inf)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for inside, outside in _folds(wanted, groups, seed):
            out[outside] = _fitted(features.z[inside], wanted[inside], strength).decision_function(features.z[outside])
    return out


def _chosen(z: np.ndarray, wanted: np.ndarray, groups: np.ndarray, seed: int) -> float:
    """The C with the best balanced accuracy over the folds, the smallest of those that do equally well."""
    if z.shape[1] <= FEW:
        return FEW_STRENGTH
    folds = _folds(wanted, groups, seed)
    if not folds:
        return MIDDLE_STRENGTH
    found = np.zeros(len(STRENGTHS))
    for inside, outside in folds:
        right = wanted[outside]
        for i, strength in enumerate(STRENGTHS):
            says = _fitted(z[inside], wanted[inside], strength).decision_function(z[outside]) > 0
            found[i] += (says[right].mean() + (~says[~right]).mean()) / 2
    return STRENGTHS[int(np.flatnonzero(found >= found.max() - 1e-9)[0])]


def _folds(wanted: np.ndarray, groups: np.ndarray, seed: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Rows inside and outside of each fold that has both classes on both sides; whole groups, classes spread evenly.

    Groups may be of one class or of both. Empty where no fold is usable.
    """
    names, which = np.unique(groups, return_inverse=True)
    counts = np.stack([np.bincount(which, each, minlength=len(names)) for each in (~wanted, wanted)], axis=1)
    fold = _dealt(counts, np.random.default_rng(seed))[which]
    sides = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(N_FOLDS)]
    return [pair for pair in sides if all(wanted[rows].any() and not wanted[rows].all() for rows in pair)]


def _dealt(counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The fold of each group, from its counts `[n_groups, 2]` of the classes: the largest first, each to the fold that
    has least of what it brings.

    As scikit-learn's StratifiedGroupKFold, which takes longer than the probes.
    """
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    order = np.lexsort((random.permutation(len(shares)), -shares.max(axis=1)))
    full, fold_of = np.zeros((N_FOLDS, 2)), np.empty(len(shares), int)
    for group in order:
        fold_of[group] = np.argmin(full @ shares[group])
        full[fold_of[group]] += shares[group]
    return fold_of


def _fitted(z: np.ndarray, wanted: np.ndarray, strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # a weak penalty on separable texts: the direction has long settled
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, class_weight="balanced", max_iter=MAX_STEPS).fit(z, wanted)
