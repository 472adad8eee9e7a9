"""What every variant in `sae.VARIANTS` that is trained by gradients promises, in every setting of `variants.CASES`."""

import dataclasses

import pytest
import torch
from torch import Tensor
from variants import CASES, D_IN, D_SAE, batch, build, moved, rows, targets

from sae import VARIANTS, EncoderSAE, Phase, checkpoint
from sae.codes import NULL, Coded
from sae.metrics import evaluate
from sae.relu import L1
from sae.train import TrainConfig, train

torch.set_num_threads(1)


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


@pytest.fixture
def model(case: str) -> EncoderSAE:
    """Away from its initial values, after one step's observation."""
    sae = moved(case)
    sae.observe(sae.loss(rows(seed=1), Phase(), targets(sae, seed=1)))
    return sae


def with_bypass(model: EncoderSAE, x: Tensor, x_hat: Tensor) -> Tensor:
    beside = model.bypass(model.enter(x))
    return x_hat if beside is None else x_hat + model.leave(beside)


def test_forward_is_decode_of_encode(model):
    x = rows()
    torch.testing.assert_close(model(x).x_hat, with_bypass(model, x, model.decode(model.encode(x))), rtol=0, atol=0)


def test_latents_are_sparse_and_nonnegative(model):
    latents = model.encode(rows())
    assert (latents.values >= 0).all()
    assert (latents.values > 0).any()
    assert latents.n_rows == len(rows())
    assert len(latents.values) < D_SAE * len(rows())
    keys = latents.rows * D_SAE + latents.indices
    assert len(keys.unique()) == len(keys)
    assert (latents.rows.diff() >= 0).all()


def test_reconstruction_is_latents_times_decoder_plus_bias(model):
    x = rows()
    out = model(x)
    decoded = model.leave(out.latents.dense() @ model.W_dec + model.b_dec)
    torch.testing.assert_close(out.x_hat, with_bypass(model, x, decoded))


def test_select_is_a_column_of_dense(model):
    latents = model.encode(rows())
    dense = latents.dense()
    for latent in range(D_SAE):
        torch.testing.assert_close(latents.select(latent), dense[:, latent], rtol=0, atol=0)


def test_encoding_a_row_does_not_depend_on_its_neighbours(model):
    """At inference every variant encodes row by row: what a batch shares in training is a threshold by then."""
    x = rows()
    together = model.encode(x).dense()
    alone = torch.cat([model.encode(x[i : i + 1]).dense() for i in range(len(x))])
    torch.testing.assert_close(together, alone)


def test_watching_changes_nothing_and_sees_every_row_once(model):
    x, seen, kept = rows(), [], []

    def watch(block, pattern):
        seen.append(block.clone())
        kept.append(pattern.scattered(torch.ones(len(pattern.indices)).double()))
        block.fill_(torch.nan)  # it may write over them

    latents = model.encode_watched(x, watch)
    torch.testing.assert_close(latents.dense(), model.encode(x).dense(), rtol=0, atol=0)
    pre_acts = (model.enter(x) - model.b_pre) @ model.W_enc + model.b_enc
    weights = model.handicap()
    torch.testing.assert_close(torch.cat(seen), pre_acts if weights is None else pre_acts * weights)
    assert ((torch.cat(kept) > 0) | (latents.dense() == 0)).all()


def test_encoding_no_rows_gives_no_latents(model):
    latents = model.encode(rows()[:0])
    assert latents.n_rows == 0
    assert len(latents.values) == 0
    assert model(rows()[:0]).x_hat.shape == (0, model.cfg.width_out)


def test_decoder_rows_have_unit_norm_after_every_step(case):
    sae = build(case)
    if sae.cfg.decoder_norm == "free":
        pytest.skip("decoder rows may have any norm")
    for _ in train(sae, [batch(sae, seed=n) for n in range(5)], TrainConfig(n_steps=5, init_rows=64)):
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_constrained_gradient_is_orthogonal_to_decoder_rows(model):
    if model.cfg.decoder_norm == "free":
        pytest.skip("decoder rows may have any norm")
    model.loss(rows(), Phase(), targets(model)).total.backward()
    assert torch.linalg.vecdot(model.W_dec.grad, model.W_dec).abs().max() > 1e-6
    model.constrain_gradients()
    torch.testing.assert_close(torch.linalg.vecdot(model.W_dec.grad, model.W_dec), torch.zeros(D_SAE).double())


def test_initialise_ties_encoder_to_decoder_and_centres_on_the_mean(case):
    sae = build(case)
    sample, target = rows().float(), targets(sae)
    sae.initialise(sample, torch.Generator().manual_seed(0), None if target is None else target.float())
    wanted = sae.enter(sample) if target is None else sae.enter_target(target.float())
    torch.testing.assert_close(sae.b_dec, wanted.double().mean(0).float())
    assert sae.b_enc.eq(0).all()
    if target is None:
        scale = (sae.W_enc / sae.W_dec.t()).mean().detach()
        torch.testing.assert_close(sae.W_enc, scale * sae.W_dec.t(), rtol=1e-5, atol=0)
        assert scale.item() == pytest.approx(1.0) or isinstance(sae, L1)
    deviation = sae.enter(sample) - sae.enter(sample).mean(0)
    torch.testing.assert_close(sae.unit, deviation.square().mean().sqrt(), rtol=1e-4, atol=0)


def test_encoder_keeps_latents_as_contiguous_rows(model):
    assert model.W_enc.shape == (D_IN, D_SAE)
    assert model.W_enc.t().is_contiguous()


def test_folding_a_scale_gives_the_scaled_sae_on_raw_rows(model):
    """A threshold, a step size or a bias left in the old unit would change which latents fire."""
    x, scale = rows(), 0.037
    on_scaled = model(x * scale)
    norms = model.W_dec.norm(dim=1)
    model.fold_scale(scale)
    torch.testing.assert_close(model(x).x_hat, on_scaled.x_hat / scale)
    torch.testing.assert_close(model(x).latents.dense(), on_scaled.latents.dense() / scale)
    torch.testing.assert_close(model.W_dec.norm(dim=1), norms)


@pytest.mark.parametrize("scale", [2.0**-12, 2.0**12])
def test_the_loss_does_not_depend_on_the_scale_of_the_data(case, scale):
    """Coefficients, bandwidths and thresholds are in the data's unit: one setting fits every layer of every model."""
    losses = []
    for factor in (1.0, scale):
        sae = build(case).double()
        target = targets(sae)
        given = () if target is None else (target * factor,)
        sae.initialise(rows() * factor, torch.Generator().manual_seed(0), *given)
        phase = Phase(generator=torch.Generator().manual_seed(0))
        losses.append(sae.loss(rows() * factor, phase, *given).total.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_folding_a_scale_that_is_not_positive_is_refused(model, scale):
    with pytest.raises(ValueError, match="scale="):
        model.fold_scale(scale)


def test_checkpoint_round_trip_is_bit_exact(model, case, tmp_path):
    checkpoint.save(tmp_path, model, {"seed": 3})
    loaded = checkpoint.load(tmp_path)
    assert type(loaded) is VARIANTS[case.split()[0]]
    assert loaded.cfg == model.cfg
    for name, parameter in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], parameter)
        assert loaded.state_dict()[name].stride() == parameter.stride()
    assert torch.equal(loaded(rows()).x_hat, model(rows()).x_hat)
    assert checkpoint.describe(tmp_path)["extra"] == {"seed": 3}


def test_training_is_deterministic_given_the_seed(case):
    def trained(seed: int) -> dict[str, Tensor]:
        sae = build(case)
        for _ in train(sae, [batch(sae, seed=n) for n in range(8)], TrainConfig(n_steps=8, seed=seed)):
            pass
        return sae.state_dict()

    first, again, other = trained(5), trained(5), trained(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["W_dec"], other["W_dec"])


def test_training_lowers_the_loss(case):
    sae = build(case)
    data = [batch(sae, n=128, seed=n) for n in range(120)]
    steps = list(train(sae, data, TrainConfig(n_steps=120, lr=3e-3, init_rows=256, sparsity_warmup=0.0)))
    first, last = (sum(s.loss.item() for s in part) for part in (steps[:10], steps[-10:]))
    assert last < first
    assert all(torch.isfinite(p).all() for p in sae.parameters())


def test_a_loss_names_its_parts_and_lists_its_latents(model):
    loss = model.loss(rows(), Phase(generator=torch.Generator()), targets(model))
    assert loss.latents.n_rows == len(rows())
    assert all(not value.requires_grad and value.ndim == 0 for value in loss.parts.values())
    assert loss.total.requires_grad
    assert not loss.fvu.requires_grad


def test_the_reported_fvu_is_that_of_the_latents_reported(case):
    sae = moved(case)
    x, target = rows(), targets(sae)
    loss = sae.loss(x, Phase(generator=torch.Generator()), target)
    wanted = sae.enter_target(x if target is None else target)
    x_hat = loss.latents.dense() @ sae.W_dec + sae.b_dec
    beside = sae.bypass(sae.enter(x))
    error = x_hat - wanted if beside is None else x_hat + beside - wanted
    torch.testing.assert_close(loss.fvu, error.square().sum() / (wanted - wanted.mean(0)).square().sum())


def test_discrete_variants_have_codes_within_their_range(model):
    if not isinstance(model, Coded):
        pytest.skip("no codes")
    codes = model.codes(rows())
    assert codes.shape[0] == len(rows())
    assert ((codes >= NULL) & (codes < model.n_codes)).all()
    assert evaluate(model, [rows()]).bits_per_row > 0


def test_configs_are_frozen_and_refuse_what_cannot_be(case):
    cfg = build(case).cfg
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.d_sae = 1
    for name, wrong in {"d_in": 0, "d_sae": 0, "aux_alpha": -1.0, "k_aux": 0}.items():
        with pytest.raises(ValueError, match=f"{name}=|site_widths="):
            dataclasses.replace(cfg, **{name: wrong})
