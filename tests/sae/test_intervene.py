"""The algebra of editing one latent."""

import pytest
import torch

from sae import TopK, TopKConfig
from sae.intervene import ablate, clamp, push

torch.set_num_threads(1)

D_IN, D_SAE = 10, 30


@pytest.fixture
def sae() -> TopK:
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=4)).double()
    sae.initialise(residual().flatten(0, 1), torch.Generator().manual_seed(0))
    return sae


@pytest.fixture
def latent(sae) -> int:
    """One that is active in some positions and not in others."""
    active = sae.encode(residual().flatten(0, 1)).dense() > 0
    return int((active.double().mean(0) - 0.3).abs().argmin())


def residual() -> torch.Tensor:
    return 2 + torch.randn(3, 20, D_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def value_of(sae: TopK, latent: int, h: torch.Tensor) -> torch.Tensor:
    return sae.encode(h.flatten(0, 1)).select(latent).reshape(h.shape[:-1])


def test_clamp_moves_along_the_decoder_row_by_the_missing_amount(sae, latent):
    h = residual()
    expected = h + (5.0 - value_of(sae, latent, h)).unsqueeze(-1) * sae.W_dec[latent]
    torch.testing.assert_close(clamp(sae, latent, 5.0)(h), expected)


def test_clamp_to_the_current_value_is_the_identity_bit_for_bit(sae, latent):
    h = residual()[:1, :1]
    current = value_of(sae, latent, h).item()
    assert torch.equal(clamp(sae, latent, current)(h), h)


def test_ablate_leaves_rows_where_the_latent_is_silent_bit_for_bit(sae, latent):
    h = residual()
    silent = value_of(sae, latent, h) == 0
    edited = ablate(sae, latent)(h)
    assert silent.any()
    assert not silent.all()
    assert torch.equal(edited[silent], h[silent])
    assert not torch.isclose(edited[~silent], h[~silent]).all(dim=-1).any()


def test_the_error_term_is_kept(sae, latent):
    """What the SAE does not explain passes through: the edit equals decoding edited latents plus the old error."""
    h = residual().flatten(0, 1)
    latents = sae.encode(h).dense()
    error = h - sae(h).x_hat
    latents[:, latent] = 0
    torch.testing.assert_close(ablate(sae, latent)(h), latents @ sae.W_dec + sae.b_dec + error)


def test_edits_of_disjoint_positions_commute(sae, latent):
    h = residual()
    mask = torch.rand(h.shape[:-1], generator=torch.Generator().manual_seed(2)) < 0.5
    one, other = clamp(sae, latent, 3.0, mask), clamp(sae, latent, 7.0, ~mask)
    torch.testing.assert_close(one(other(h)), other(one(h)), rtol=0, atol=0)


def test_ablating_twice_is_ablating_once_when_encoder_is_tied(sae, latent):
    """With W_enc[:, i] = W_dec[i] of norm 1 and b_enc = 0, the edit sets pre-activation i to 0, so it cannot return.

    For an untied encoder only the first edit is exact; that is why `clamp` promises no idempotence.
    """
    h = residual()
    once = ablate(sae, latent)(h)
    torch.testing.assert_close(ablate(sae, latent)(once), once)


def test_masked_positions_come_back_bit_for_bit(sae, latent):
    h = residual()
    mask = torch.ones(h.shape[:-1], dtype=torch.bool)
    mask[:, 0] = False
    edited = clamp(sae, latent, 9.0, mask)(h)
    assert torch.equal(edited[:, 0], h[:, 0])
    assert (edited[:, 1:] != h[:, 1:]).any(dim=-1).all()


def test_a_mask_over_positions_broadcasts_over_the_batch(sae, latent):
    h = residual()
    mask = torch.arange(20) > 0
    full = clamp(sae, latent, 9.0, mask.expand(3, 20))(h)
    assert torch.equal(clamp(sae, latent, 9.0, mask)(h), full)


def test_nothing_to_edit_is_the_identity(sae, latent):
    h = residual()
    assert torch.equal(clamp(sae, latent, 9.0, torch.zeros(3, 20, dtype=torch.bool))(h), h)


@pytest.mark.parametrize("shape", [(D_IN,), (4, D_IN), (2, 3, 4, D_IN)])
def test_any_leading_shape_and_the_input_is_not_changed(sae, latent, shape):
    h = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before = h.clone()
    edited = clamp(sae, latent, 2.0)(h)
    assert edited.shape == h.shape
    assert torch.equal(h, before)


def test_the_dtype_of_the_stream_is_kept(sae, latent):
    assert clamp(sae, latent, 2.0)(residual().to(torch.float16)).dtype == torch.float16


@pytest.mark.parametrize("latent", [-1, D_SAE])
def test_a_latent_that_does_not_exist_is_refused(sae, latent):
    with pytest.raises(ValueError, match=f"latent={latent}"):
        clamp(sae, latent, 1.0)


def test_a_mask_that_does_not_fit_is_refused(sae, latent):
    with pytest.raises(ValueError, match="mask of shape"):
        clamp(sae, latent, 1.0, torch.ones(7, dtype=torch.bool))(residual())


def test_push_adds_a_multiple_of_each_sequence_s_own_row_and_nothing_at_strength_zero(sae):
    h, strengths = residual(), torch.tensor([2.0, 0.0, -1.5], dtype=torch.float64)
    rows = sae.W_dec[:3].detach()
    pushed = push(rows, strengths)(h)
    torch.testing.assert_close(pushed, h + (strengths[:, None] * rows)[:, None, :])
    assert torch.equal(pushed[1], h[1])
    assert push(rows.float(), strengths.float())(h.bfloat16())[1].equal(h.bfloat16()[1])
