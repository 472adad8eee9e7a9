"""The sparse products against dense ones, in float64."""

import pytest
import torch

from sae import sparse

torch.set_num_threads(1)

BATCH, D_SAE, D_IN = 7, 11, 5


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pattern(generator: torch.Generator) -> sparse.Pattern:
    """Latents 0 and D_SAE - 1 are never kept and rows 0 and 3 keep none, so that empty groups are covered."""
    kept = torch.rand(BATCH, D_SAE, generator=generator) < 0.4
    kept[:, [0, -1]] = False
    kept[[0, 3]] = False
    rows, indices = kept.nonzero(as_tuple=True)
    return sparse.Pattern(indices, torch.searchsorted(rows, torch.arange(BATCH + 1)), D_SAE)


@pytest.fixture(params=[0.0, 1.0], ids=["dense", "sparse"], autouse=True)
def _products(request, monkeypatch):
    """Every test runs on both kinds of products."""
    monkeypatch.setattr(sparse, "DENSE_ABOVE", request.param)


def dense(values: torch.Tensor, kept: sparse.Pattern) -> torch.Tensor:
    return values.new_zeros(BATCH, D_SAE).index_put((kept.rows, kept.indices), values)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_transposed_product_is_the_dense_one(generator):
    kept = pattern(generator)
    values, right = normal(generator, len(kept.indices)), normal(generator, BATCH, D_IN)
    torch.testing.assert_close(kept.transposed_product(values, right), dense(values, kept).t() @ right)


def test_transposed_sum_is_the_dense_one(generator):
    kept = pattern(generator)
    values = normal(generator, len(kept.indices))
    torch.testing.assert_close(kept.transposed_sum(values), dense(values, kept).sum(0))


def test_decode_gradients_pass_gradcheck(generator):
    kept = pattern(generator)
    values = normal(generator, len(kept.indices)).requires_grad_()
    W_dec = normal(generator, D_SAE, D_IN).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: sparse.decode(v, w, kept), (values, W_dec))


def test_take_pre_acts_gradients_pass_gradcheck(generator):
    kept = pattern(generator)
    inputs = [
        normal(generator, BATCH, D_IN).requires_grad_(),
        normal(generator, D_IN, D_SAE).requires_grad_(),
        normal(generator, D_SAE).requires_grad_(),
        normal(generator, D_IN).requires_grad_(),
    ]

    def take(x, W_enc, b_enc, b_dec):
        x_centred = (x - b_dec).detach()
        taken = (x_centred @ W_enc + b_enc).detach()[kept.rows, kept.indices]
        return sparse.take_pre_acts(x, W_enc, b_enc, b_dec, x_centred, taken, kept)

    assert torch.autograd.gradcheck(take, inputs)


def test_losses_on_one_encoding_add_their_gradients(generator):
    """Two decodes of one encoding compose: the second does not overwrite the first."""
    kept = pattern(generator)
    values = normal(generator, len(kept.indices)).requires_grad_()
    W_dec = normal(generator, D_SAE, D_IN).requires_grad_()
    ours = sparse.decode(values, W_dec, kept).square().sum() + sparse.decode(values, W_dec, kept).abs().sum()
    decoded = dense(values, kept) @ W_dec
    reference = decoded.square().sum() + decoded.abs().sum()
    torch.testing.assert_close(ours, reference)
    for a, b in zip(
        torch.autograd.grad(ours, (values, W_dec)), torch.autograd.grad(reference, (values, W_dec)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_squared_error_gradients_are_those_of_dense_autograd(generator):
    """Nested reconstructions in one cumulative pass, each with a weight of its own."""
    kept = pattern(generator)
    group = torch.bucketize(kept.indices, torch.tensor([3, 7]), right=True)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    shapes = ((len(kept.indices),), (D_SAE, D_IN), (D_IN,), (BATCH, D_IN))
    values, W_dec, b_dec, target = inputs = [normal(generator, *shape).requires_grad_() for shape in shapes]
    found = sparse.squared_error(
        sparse.SparseLatents(values, kept), W_dec, b_dec, target, sparse.Nesting(group, weights)
    ).total
    acts = dense(values, kept)
    parts = [acts[:, :end] @ W_dec[:end] + b_dec - target for end in (3, 7, D_SAE)]
    wanted = sum(w * part.square().sum() for w, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_prefix_errors_are_those_of_separate_forwards(generator):
    kept = pattern(generator)
    group = torch.bucketize(kept.indices, torch.tensor([3, 7]), right=True)
    values, W_dec = normal(generator, len(kept.indices)), normal(generator, D_SAE, D_IN)
    target, b_dec = normal(generator, BATCH, D_IN), normal(generator, D_IN)
    latents = sparse.SparseLatents(values, kept)
    for j, end in enumerate((3, 7, D_SAE)):
        weights = torch.zeros(3, dtype=torch.float64).index_fill_(0, torch.tensor(j), 1.0)
        found = sparse.squared_error(latents, W_dec, b_dec, target, sparse.Nesting(group, weights), keep_error=True)
        separate = dense(values, kept)[:, :end] @ W_dec[:end] + b_dec
        torch.testing.assert_close(found.total, (separate - target).square().sum())
    torch.testing.assert_close(found.error, separate - target)
    torch.testing.assert_close(found.final, (separate - target).square().sum())


def test_row_dot_is_the_dot_product_of_rows(generator):
    a, b = normal(generator, D_SAE, D_IN), normal(generator, D_SAE, D_IN)
    torch.testing.assert_close(sparse.row_dot(a, b), (a * b).sum(1))


def test_patterns_one_after_the_other_are_their_rows(generator):
    kept = pattern(generator)
    both = sparse.Pattern.cat([kept, kept])
    values = normal(generator, len(kept.indices))
    assert torch.equal(both.scattered(torch.cat([values, values])), torch.cat([dense(values, kept)] * 2))


def test_the_plain_products_carry_no_gradient(generator):
    kept = pattern(generator)
    values = normal(generator, len(kept.indices)).requires_grad_()
    table, right = normal(generator, D_SAE, D_IN).requires_grad_(), normal(generator, BATCH, D_IN).requires_grad_()
    assert not sparse.gather_sum(values, table, kept).requires_grad
    assert not sparse.gather_dot(right, table, kept).requires_grad
    assert not kept.transposed_product(values, right).requires_grad


def test_decode_differentiates_only_what_wants_a_gradient(generator):
    kept = pattern(generator)
    values, W_dec = normal(generator, len(kept.indices)), normal(generator, D_SAE, D_IN)
    reference = torch.autograd.functional.jacobian(lambda w: (dense(values, kept) @ w).square().sum(), W_dec)
    x_hat = sparse.decode(values, W_dec.requires_grad_(), kept)
    torch.testing.assert_close(torch.autograd.grad(x_hat.square().sum(), W_dec)[0], reference)
    with torch.no_grad():
        assert not sparse.decode(values, W_dec, kept).requires_grad


def test_second_derivatives_are_refused_rather_than_wrong(generator):
    kept = pattern(generator)
    values = normal(generator, len(kept.indices)).requires_grad_()
    W_dec = normal(generator, D_SAE, D_IN).requires_grad_()
    (first,) = torch.autograd.grad(sparse.decode(values, W_dec, kept).square().sum(), W_dec, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_no_tensor_of_batch_by_k_by_d_in_is_allocated(generator, monkeypatch):
    """The step's memory is what makes it scale: the largest allocation stays at a matrix, not k of them."""
    monkeypatch.setattr(sparse, "DENSE_ABOVE", 1.0)
    batch, k, d_sae, d_in = 256, 16, 512, 64
    indices = torch.rand(batch, d_sae, generator=generator).topk(k).indices
    values = torch.rand(batch * k, generator=generator).requires_grad_()
    W_dec = torch.randn(d_sae, d_in, generator=generator).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        sparse.decode(values, W_dec, sparse.Pattern.of_table(indices, d_sae)).square().sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest < batch * k * d_in * 4 / 2


def test_differentiating_a_squared_error_twice_is_refused_rather_than_wrong(generator):
    kept = pattern(generator)
    values = normal(generator, len(kept.indices)).requires_grad_()
    W_dec, target = normal(generator, D_SAE, D_IN), normal(generator, BATCH, D_IN)
    total = sparse.squared_error(sparse.SparseLatents(values, kept), W_dec, target[0], target).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        total.backward()
