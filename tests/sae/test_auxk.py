"""AuxK revives dead latents, and touches nothing else."""

import pytest
import torch

from sae import Phase, TopK, TopKConfig
from sae.auxk import SPARSE_ABOVE, auxk_loss, default_k_aux

torch.set_num_threads(1)

D_IN, D_SAE = 8, 48


@pytest.fixture
def sae() -> TopK:
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=3)).double()
    sae.initialise(rows(), torch.Generator().manual_seed(1))
    return sae


def rows(n: int = 50) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def aux_gradients(sae: TopK, dead: torch.Tensor, k_aux: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = rows(600)  # enough for every dead latent to be among the k_aux of some row
    weights = (sae.W_enc, sae.b_enc, sae.W_dec)
    loss = auxk_loss(x - sae(x).x_hat, (x - sae.b_dec).detach(), weights, dead.nonzero().squeeze(1), k_aux)
    return torch.autograd.grad(loss, weights)


@pytest.mark.parametrize(("n_dead", "k_aux"), [(5, 4), (5, 100), (40, 2)])
def test_gradient_reaches_every_dead_encoder_row_and_no_live_one(sae, n_dead, k_aux):
    """Guards against an AuxK that only trains the decoder, which leaves dead latents dead."""
    dead = torch.arange(D_SAE) < n_dead
    grad_W_enc, grad_b_enc, grad_W_dec = aux_gradients(sae, dead, k_aux)
    assert (grad_W_enc[:, dead].norm(dim=0) > 0).all()
    assert (grad_b_enc[dead] != 0).all()
    assert (grad_W_dec[dead].norm(dim=1) > 0).all()
    assert not grad_W_enc[:, ~dead].any()
    assert not grad_b_enc[~dead].any()
    assert not grad_W_dec[~dead].any()


def test_dense_and_sparse_products_agree(sae, monkeypatch):
    dead = torch.arange(D_SAE) < 3 * SPARSE_ABOVE
    by_sparse = aux_gradients(sae, dead, 2)
    monkeypatch.setattr("sae.auxk.SPARSE_ABOVE", D_SAE)
    for ours, reference in zip(by_sparse, aux_gradients(sae, dead, 2), strict=True):
        torch.testing.assert_close(ours, reference)


def test_a_constant_residual_gives_zero_and_not_nan(sae):
    x = rows()
    weights = (sae.W_enc, sae.b_enc, sae.W_dec)
    loss = auxk_loss(torch.zeros_like(x), (x - sae.b_dec).detach(), weights, torch.arange(D_SAE), 4)
    gradients = torch.autograd.grad(loss, weights)
    assert loss == 0
    assert all(g.isfinite().all() for g in gradients)


def test_loss_does_not_depend_on_the_scale_of_the_data(sae):
    phase = Phase(dead=torch.arange(10))
    x = rows()
    before = sae.loss(x, phase).parts["aux"].item()
    sae.fold_scale(1 / 1000)
    assert sae.loss(x * 1000, phase).parts["aux"].item() == pytest.approx(before, rel=1e-9)


def test_no_dead_latent_gives_zero(sae):
    assert sae.loss(rows(), Phase(dead=torch.arange(0))).parts["aux"] == 0
    assert sae.loss(rows()).parts["aux"] == 0


def test_aux_alpha_zero_turns_it_off():
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=3, aux_alpha=0.0)).double()
    loss = sae.loss(rows(), Phase(dead=torch.arange(D_SAE)))
    assert loss.total == loss.fvu
    assert not loss.parts


@pytest.mark.parametrize(("d_in", "k_aux"), [(1, 1), (2, 1), (576, 288)])
def test_default_k_aux_is_half_of_d_in(d_in, k_aux):
    assert default_k_aux(d_in) == k_aux
