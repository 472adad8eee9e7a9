"""What every variant in `sae.VARIANTS` promises."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sae import SAE, VARIANTS, SAEConfig, TopK, TopKConfig, checkpoint
from sae.metrics import evaluate
from sae.train import TrainConfig, train

torch.set_num_threads(1)

D_IN, D_SAE = 12, 40

CONFIGS: dict[str, SAEConfig] = {"topk": TopKConfig(d_in=D_IN, d_sae=D_SAE, k=4, k_aux=3)}


def dense_topk_loss(sae: TopK, x: Tensor, dead: Tensor | None) -> Tensor:
    """The TopK loss written with dense matrices only, for autograd to differentiate."""
    x_centred = x - sae.b_dec
    x_hat = keep_largest(x_centred @ sae.W_enc + sae.b_enc, sae.cfg.k) @ sae.W_dec + sae.b_dec
    fvu = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    if dead is None:
        return fvu
    residual = (x - x_hat).detach()
    pre_acts = x_centred.detach() @ sae.W_enc + sae.b_enc
    acts = keep_largest(pre_acts.masked_fill(~dead, -torch.inf), min(sae.cfg.k_aux, int(dead.sum())))
    error = acts @ sae.W_dec - residual
    return fvu + sae.cfg.aux_alpha * error.square().sum() / (residual - residual.mean(0)).square().sum()


def keep_largest(pre_acts: Tensor, k: int) -> Tensor:
    kept = torch.zeros_like(pre_acts).scatter_(1, pre_acts.topk(k).indices, 1.0)
    return torch.relu(torch.where(kept > 0, pre_acts, 0.0))


DENSE_LOSS: dict[str, Callable[..., Tensor]] = {"topk": dense_topk_loss}


@pytest.fixture(params=sorted(VARIANTS))
def variant(request) -> str:
    return request.param


@pytest.fixture
def model(variant: str) -> SAE:
    """An SAE in float64 away from its initial values, so that no gradient is zero by symmetry."""
    generator = torch.Generator().manual_seed(3)
    sae = VARIANTS[variant](CONFIGS[variant]).double()
    sae.initialise(rows(), generator)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    sae.constrain_weights()
    return sae


def rows(n: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3.0 + 2.0 * torch.randn(n, D_IN, generator=generator, dtype=torch.float64)


def test_every_variant_has_a_config_and_a_dense_reference_here():
    assert set(CONFIGS) == set(DENSE_LOSS) == set(VARIANTS)


def test_forward_is_decode_of_encode(model):
    x = rows()
    torch.testing.assert_close(model(x).x_hat, model.decode(model.encode(x)), rtol=0, atol=0)


def test_latents_are_sparse_and_nonnegative(model):
    latents = model.encode(rows())
    assert (latents.values >= 0).all()
    assert (latents.values > 0).any()
    assert latents.values.shape[1] < D_SAE
    assert all(len(set(row.tolist())) == len(row) for row in latents.indices)


def test_reconstruction_is_latents_times_decoder_plus_bias(model):
    out = model(rows())
    torch.testing.assert_close(out.x_hat, out.latents.dense(D_SAE) @ model.W_dec + model.b_dec)


def test_select_is_a_column_of_dense(model):
    latents = model.encode(rows())
    dense = latents.dense(D_SAE)
    for latent in range(D_SAE):
        torch.testing.assert_close(latents.select(latent), dense[:, latent], rtol=0, atol=0)


@pytest.mark.parametrize("n_dead", [0, 1, 10, 35], ids=lambda n: f"{n}_dead")
def test_loss_gradients_equal_dense_autograd(model, variant, n_dead):
    dead = (torch.arange(D_SAE) < n_dead) if n_dead else None
    x = rows()
    sparse_loss = model.loss(x, dead).total
    dense_loss = DENSE_LOSS[variant](model, x, dead)
    torch.testing.assert_close(sparse_loss, dense_loss, rtol=1e-12, atol=0)
    named = dict(model.named_parameters())
    sparse_grads = torch.autograd.grad(sparse_loss, list(named.values()))
    dense_grads = torch.autograd.grad(dense_loss, list(named.values()))
    for name, ours, reference in zip(named, sparse_grads, dense_grads, strict=True):
        assert reference.abs().max() > 0, name
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-14, msg=lambda m, name=name: f"{name}: {m}")


def test_gradient_of_the_input_equals_dense_autograd(model, variant):
    x = rows().requires_grad_()
    (ours,) = torch.autograd.grad(model.loss(x).total, x)
    (reference,) = torch.autograd.grad(DENSE_LOSS[variant](model, x, None), x)
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-14)


def test_decoder_rows_have_unit_norm_after_every_step(variant):
    sae = VARIANTS[variant](CONFIGS[variant])
    for _ in train(sae, [rows(seed=n) for n in range(5)], TrainConfig(n_steps=5, init_rows=64)):
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_constrained_gradient_is_orthogonal_to_decoder_rows(model):
    model.loss(rows()).total.backward()
    assert torch.linalg.vecdot(model.W_dec.grad, model.W_dec).abs().max() > 1e-6
    model.constrain_gradients()
    torch.testing.assert_close(torch.linalg.vecdot(model.W_dec.grad, model.W_dec), torch.zeros(D_SAE).double())


def test_initialise_ties_encoder_to_decoder_and_centres_on_the_mean(variant):
    sae = VARIANTS[variant](CONFIGS[variant])
    sae.initialise(rows().float(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(sae.W_enc, sae.W_dec.t(), rtol=0, atol=0)
    torch.testing.assert_close(sae.b_dec, rows().float().mean(0))
    assert sae.b_enc.eq(0).all()


def test_encoder_keeps_latents_as_contiguous_rows(model):
    assert model.W_enc.shape == (D_IN, D_SAE)
    assert model.W_enc.t().is_contiguous()


def test_folding_a_scale_gives_the_scaled_sae_on_raw_rows(model):
    x, scale = rows(), 0.037
    on_scaled = model(x * scale)
    fvu_on_scaled = evaluate(model, [x * scale]).fvu
    model.fold_scale(scale)
    torch.testing.assert_close(model(x).x_hat, on_scaled.x_hat / scale)
    torch.testing.assert_close(model(x).latents.dense(D_SAE), on_scaled.latents.dense(D_SAE) / scale)
    torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(D_SAE).double())
    assert evaluate(model, [x]).fvu == pytest.approx(fvu_on_scaled, rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_folding_a_scale_that_is_not_positive_is_refused(model, scale):
    with pytest.raises(ValueError, match="scale="):
        model.fold_scale(scale)


def test_checkpoint_round_trip_is_bit_exact(model, variant, tmp_path):
    checkpoint.save(tmp_path, model, {"seed": 3})
    loaded = checkpoint.load(tmp_path)
    assert type(loaded) is VARIANTS[variant]
    assert loaded.cfg == model.cfg
    for name, parameter in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], parameter)
        assert loaded.state_dict()[name].stride() == parameter.stride()
    assert torch.equal(loaded(rows()).x_hat, model(rows()).x_hat)
    assert checkpoint.describe(tmp_path)["extra"] == {"seed": 3}


def test_training_is_deterministic_given_the_seed(variant):
    def trained(seed: int) -> dict[str, Tensor]:
        sae = VARIANTS[variant](CONFIGS[variant])
        for _ in train(sae, [rows(seed=n) for n in range(8)], TrainConfig(n_steps=8, seed=seed)):
            pass
        return sae.state_dict()

    first, again, other = trained(5), trained(5), trained(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["W_dec"], other["W_dec"])


def test_pre_acts_are_dropped_at_inference(model):
    assert model(rows()).pre_acts is not None
    with torch.no_grad():
        assert model(rows()).pre_acts is None
