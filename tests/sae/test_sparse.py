"""The sparse products against dense ones, in float64."""

import pytest
import torch

from sae import sparse

torch.set_num_threads(1)

BATCH, K, D_SAE, D_IN = 7, 3, 11, 5


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pattern(generator: torch.Generator) -> sparse.Pattern:
    """Latents 0 and D_SAE - 1 are never kept, so that empty first and last groups are covered."""
    scores = torch.rand(BATCH, D_SAE - 2, generator=generator)
    return sparse.Pattern(1 + scores.topk(K).indices, D_SAE)


def dense(values: torch.Tensor, kept: sparse.Pattern) -> torch.Tensor:
    return values.new_zeros(BATCH, D_SAE).scatter(1, kept.indices, values)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_transposed_product_is_the_dense_one(generator):
    kept, values, right = pattern(generator), normal(generator, BATCH, K), normal(generator, BATCH, D_IN)
    torch.testing.assert_close(kept.transposed_product(values, right), dense(values, kept).t() @ right)


def test_transposed_sum_is_the_dense_one(generator):
    kept, values = pattern(generator), normal(generator, BATCH, K)
    torch.testing.assert_close(kept.transposed_sum(values), dense(values, kept).sum(0))


def test_decode_gradients_pass_gradcheck(generator):
    kept = pattern(generator)
    values = normal(generator, BATCH, K).requires_grad_()
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
        return sparse.take_pre_acts(x, W_enc, b_enc, b_dec, x_centred, (x_centred @ W_enc + b_enc).detach(), kept)

    assert torch.autograd.gradcheck(take, inputs)


def test_losses_on_one_encoding_add_their_gradients(generator):
    """Two decodes of one encoding (multi-TopK, Matryoshka) compose: the second does not overwrite the first."""
    kept = pattern(generator)
    values = normal(generator, BATCH, K).requires_grad_()
    W_dec = normal(generator, D_SAE, D_IN).requires_grad_()
    head = sparse.Pattern(kept.indices[:, :1], D_SAE)
    ours = sparse.decode(values, W_dec, kept).square().sum() + sparse.decode(values[:, :1], W_dec, head).square().sum()
    only_first = torch.zeros(K, dtype=torch.float64)
    only_first[0] = 1
    reference = (dense(values, kept) @ W_dec).square().sum() + (dense(values * only_first, kept) @ W_dec).square().sum()
    torch.testing.assert_close(ours, reference)
    for a, b in zip(
        torch.autograd.grad(ours, (values, W_dec)), torch.autograd.grad(reference, (values, W_dec)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_second_derivatives_are_refused_rather_than_wrong(generator):
    kept = pattern(generator)
    values = normal(generator, BATCH, K).requires_grad_()
    W_dec = normal(generator, D_SAE, D_IN).requires_grad_()
    (first,) = torch.autograd.grad(sparse.decode(values, W_dec, kept).square().sum(), W_dec, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_no_tensor_of_batch_by_k_by_d_in_is_allocated(generator):
    """The step's memory is what makes it scale: the largest allocation stays at a matrix, not k of them."""
    batch, k, d_sae, d_in = 256, 16, 512, 64
    indices = torch.rand(batch, d_sae, generator=generator).topk(k).indices
    values = torch.rand(batch, k, generator=generator).requires_grad_()
    W_dec = torch.randn(d_sae, d_in, generator=generator).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        sparse.decode(values, W_dec, sparse.Pattern(indices, d_sae)).square().sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest < batch * k * d_in * 4 / 2
