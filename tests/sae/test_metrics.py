"""Each metric against a two-pass float64 oracle, on data made to break one-pass formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sae import SparseLatents, TopK, TopKConfig
from sae.metrics import (
    StreamingFiring,
    StreamingFVU,
    StreamingMean,
    evaluate,
    loss_recovered,
    row_cosine,
    row_l2_ratio,
)

torch.set_num_threads(1)

seeds = st.integers(0, 2**31)


def adversarial(seed: int = 0, n: int = 500, d: int = 6) -> tuple[Tensor, Tensor]:
    """Mean 1e6, one dimension 1e4 times the others, and a reconstruction that is off by noise."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.ones(d, dtype=torch.float64)
    scale[2] = 1e4
    x = 1e6 + scale * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, x + 0.3 * torch.randn(n, d, generator=generator, dtype=torch.float64)


def oracle_fvu(x: Tensor, x_hat: Tensor) -> float:
    return ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()


def streamed(x: Tensor, x_hat: Tensor, n_chunks: int = 7) -> float | None:
    fvu = StreamingFVU()
    for rows, reconstruction in zip(x.chunk(n_chunks), x_hat.chunk(n_chunks), strict=True):
        fvu.update(rows, reconstruction)
    return fvu.value()


@pytest.mark.parametrize("n_chunks", [1, 7, 500])
def test_fvu_equals_the_two_pass_oracle_on_adversarial_data(n_chunks):
    x, x_hat = adversarial()
    assert streamed(x, x_hat, n_chunks) == pytest.approx(oracle_fvu(x, x_hat), rel=1e-10)


def test_fvu_in_float32_with_a_large_mean_equals_the_oracle():
    x, x_hat = (t.float() for t in adversarial())
    assert streamed(x, x_hat) == pytest.approx(oracle_fvu(x.double(), x_hat.double()), rel=1e-10)


def test_fvu_does_not_depend_on_the_order_of_chunks():
    x, x_hat = adversarial()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert streamed(x, x_hat) == pytest.approx(streamed(x[order], x_hat[order], 3), rel=1e-10)


def test_fvu_merge_equals_one_stream():
    x, x_hat = adversarial()
    left, right = StreamingFVU(), StreamingFVU()
    left.update(x[:123], x_hat[:123])
    right.update(x[123:], x_hat[123:])
    left.merge(right)
    left.merge(StreamingFVU())
    assert left.n_rows == len(x)
    assert left.value() == pytest.approx(oracle_fvu(x, x_hat), rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_fvu_is_invariant_under_shift_and_scale(seed, shift, scale):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    x_hat = x + 0.5 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    moved = streamed(x * scale + shift, x_hat * scale + shift)
    assert moved == pytest.approx(streamed(x, x_hat), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, offset=st.floats(0.1, 100))
def test_a_constant_offset_is_not_free(seed, offset):
    """Guards against Var(x − x_hat) / Var(x), which calls x + 100 a perfect reconstruction."""
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = 40 * 3 * offset**2 / (x - x.mean(0)).square().sum().item()
    assert streamed(x, x + offset) == pytest.approx(expected, rel=1e-9)


def test_predicting_the_mean_of_each_dimension_scores_one():
    """Guards against centring on one scalar, which scores this near 0 when dimensions differ in mean."""
    x = torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + torch.arange(4) * 100
    assert streamed(x, x.mean(0).expand_as(x)) == pytest.approx(1.0, rel=1e-10)


def test_batches_with_different_means_are_centred_on_one_global_mean():
    """Guards against averaging per-batch FVUs, which loses the variance between batches."""
    x = torch.cat([torch.randn(50, 2).double() + 100 * n for n in range(4)])
    x_hat = x + 1.0
    assert streamed(x, x_hat, 4) == pytest.approx(oracle_fvu(x, x_hat), rel=1e-10)


def test_fvu_of_nothing_and_of_equal_rows_is_none():
    fvu = StreamingFVU()
    assert fvu.value() is None
    fvu.update(torch.ones(3, 2), torch.zeros(3, 2))
    assert fvu.value() is None


def test_firing_counts_density_l0_and_dead_fraction():
    firing = StreamingFiring(5)
    firing.update(SparseLatents.of_table(torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([[0, 1], [0, 2]]), 4))
    firing.update(SparseLatents.of_table(torch.tensor([[0.0, 0.5]]), torch.tensor([[3, 2]]), 4))
    assert firing.counts.tolist() == [2, 0, 2, 0, 0]
    assert firing.l0() == pytest.approx(4 / 3)
    assert firing.dead_fraction() == pytest.approx(3 / 5)
    torch.testing.assert_close(firing.density(), torch.tensor([2 / 3, 0, 2 / 3, 0, 0], dtype=torch.float64))


def test_firing_of_nothing_is_none():
    firing = StreamingFiring(5)
    assert firing.l0() is None
    assert firing.density() is None
    assert firing.dead_fraction() is None


def test_mean_counts_what_is_not_finite_apart():
    mean = StreamingMean()
    assert mean.value() is None
    mean.update(torch.tensor([1.0, float("nan"), 3.0]))
    mean.update(torch.tensor([5.0]))
    assert mean.value() == pytest.approx(3.0)
    assert mean.n_undefined == 1


def test_row_cosine_and_l2_ratio():
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    x_hat = torch.tensor([[6.0, 8.0], [0.0, 2.0], [1.0, 0.0]])
    assert row_cosine(x, x_hat)[:2].tolist() == pytest.approx([1.0, 0.0])
    assert row_l2_ratio(x, x_hat)[:2].tolist() == pytest.approx([2.0, 2.0])
    assert row_cosine(x, x_hat)[2].isnan()
    assert row_l2_ratio(x, x_hat)[2].isnan()


def test_evaluate_reports_the_streaming_metrics():
    sae = TopK(TopKConfig(d_in=6, d_sae=20, k=3))
    x, _ = adversarial(n=90)
    x = (x - 1e6).float()
    result = evaluate(sae, x.split(25))
    assert result.n_rows == 90
    assert result.fvu == pytest.approx(oracle_fvu(x.double(), sae(x).x_hat.double()), rel=1e-6)
    assert result.counts.sum().item() / 90 == pytest.approx(result.l0)


@pytest.mark.parametrize(
    ("spliced", "expected"),
    [(2.0, 1.0), (6.0, 0.0), (3.0, 0.75), (8.0, -0.5)],
    ids=["clean", "ablated", "most", "worse"],
)
def test_loss_recovered(spliced, expected):
    assert loss_recovered(clean=2.0, spliced=spliced, ablated=6.0) == pytest.approx(expected)


def test_loss_recovered_is_none_where_ablating_costs_nothing():
    assert loss_recovered(clean=2.0, spliced=2.0, ablated=2.0) is None
