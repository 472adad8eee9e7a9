"""Other libraries' "explained variance", each under its own name, so that published numbers can be checked.

None of them is `metrics.StreamingFVU`: that one is what monosem means by FVU. With e = x − x_hat, each formula is taken
on all rows given as one batch; where a library averages over its batches, its number depends on their size as well.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "batch d"]


def ev_saelens(x: Rows, x_hat: Rows) -> float:
    """mean_rows(1 − ‖e‖² / ‖x − mean x‖²): a ratio for each row, so that rows near the mean decide.

    SAELens logs it as `explained_variance_legacy`, and used it before 2025-03; SAEBench's paper reports it.
    """
    total = (x - x.mean(dim=0)).square().sum(dim=1)
    return (1 - (x - x_hat).square().sum(dim=1) / total).mean().item()


def ev_saebench(x: Rows, x_hat: Rows) -> float:
    """1 − E‖e‖² / (E‖x‖² − (mean_i E x_i²)²): what is subtracted is no mean of x, so that it changes with x's unit.

    SAEBench 0.6.0, `core/main.py`, `explained_variance`; SAELens from 2025-03 to 2026-07.
    """
    square = x.square().sum(dim=1).mean()
    subtracted = x.square().mean(dim=0).mean().square()
    return (1 - (x - x_hat).square().sum(dim=1).mean() / (square - subtracted)).item()


def ev_dictionary_learning(x: Rows, x_hat: Rows) -> float:
    """1 − Σ_i var(e_i) / Σ_i var(x_i): the mean of e is taken off, so that a constant offset costs nothing.

    dictionary_learning, `evaluation.py`, `frac_variance_explained`.
    """
    return (1 - (x - x_hat).var(dim=0).sum() / x.var(dim=0).sum()).item()


def r2_overcomplete(x: Rows, x_hat: Rows) -> float:
    """1 − Σ e² / Σ (x − one number)²: the number is the mean over rows and dimensions alike.

    overcomplete, `metrics.py`, `r2_score`. Predicting each dimension's mean scores above 0.
    """
    return (1 - (x - x_hat).square().sum() / (x - x.mean()).square().sum()).item()


def nmse_openai(x: Rows, x_hat: Rows) -> float:
    """mean_rows(‖e‖² / ‖x‖²): not centred, so that a large mean of x makes it small.

    openai/sparse_autoencoder, `loss.py`, `normalized_mean_squared_error`.
    """
    return ((x - x_hat).square().mean(dim=1) / x.square().mean(dim=1)).mean().item()


LEGACY: dict[str, Callable[[Tensor, Tensor], float]] = {
    "legacy_ev_saelens": ev_saelens,
    "legacy_ev_saebench": ev_saebench,
    "legacy_ev_dictionary_learning": ev_dictionary_learning,
    "legacy_r2_overcomplete": r2_overcomplete,
    "legacy_nmse_openai": nmse_openai,
}
"""Every formula by the name it is reported under; 1 − FVU is the number to hold the first four against."""
