"""Ways in which SAE trainers have been silently wrong while their loss curves looked fine, each under its own name."""

import pytest
import torch
from variants import CASES, D_IN, D_SAE, batch, build, moved, rows, targets

from sae import Pattern, Phase, TopK, TopKConfig
from sae.metrics import StreamingFVU, evaluate
from sae.resample import resample
from sae.train import TrainConfig, train

torch.set_num_threads(1)

WITH_AUXK = [case for case in CASES if build(case).cfg.aux_alpha > 0]


@pytest.mark.parametrize("case", WITH_AUXK)
def test_auxk_gives_dead_encoder_rows_a_gradient(case):
    """An AuxK taken on the output of a fused encoder gave the decoder a gradient and the encoder exactly none."""
    sae = moved(case)
    x, target = rows(600), targets(sae, 600)
    with torch.no_grad():
        sae.b_enc[:6] = -1e3
    without = torch.autograd.grad(sae.loss(x, Phase(generator=gen()), target).total, [sae.W_enc, sae.b_enc])
    assert all(not g[..., :6].any() for g in without)
    with torch.no_grad():
        sae.b_enc[:6] = -1.0
    dead = Phase(dead=torch.arange(6), generator=gen())
    value = sae.loss(x, dead, target).parts["aux"]
    assert value > 0
    live = torch.autograd.grad(sae.loss(x, dead, target).total, [sae.W_enc, sae.b_enc, sae.W_dec])
    assert (live[0][:, :6].norm(dim=0) > 0).all()
    assert (live[1][:6] != 0).all()
    assert (live[2][:6].norm(dim=1) > 0).all()


def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_multi_topk_gives_the_encoder_a_gradient_beyond_the_first_k():
    """The same fused encoder gave Multi-TopK's extra latents none."""
    sae = moved("topk multi")
    x = rows(2)
    kept = (((x - sae.b_dec) @ sae.W_enc + sae.b_enc).topk(sae.cfg.k).indices).unique()
    grads = torch.autograd.grad(sae.loss(x).total, sae.W_enc)[0].norm(dim=0)
    extra = torch.ones(D_SAE, dtype=torch.bool).index_fill(0, kept, False)
    assert (grads[extra] > 0).any()


def test_default_settings_train():
    """A default buffer smaller than the default batch made a library's default settings raise."""
    sae = TopK(TopKConfig(d_in=64, d_sae=128))
    data = [torch.randn(64, 64, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    assert len(list(train(sae, data, TrainConfig(n_steps=3)))) == 3


@pytest.mark.parametrize("case", ["relu", "gated", "jumprelu", "topk", "transcoder unit batch", "crosscoder"])
def test_resampling_changes_the_rows_of_dead_latents_and_no_others(case):
    """`W[dead][:n] = …` writes to a copy: zero rows changed."""
    sae = moved(case)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    dead = torch.tensor([1, 5, 17])
    changed = resample(sae, rows(), dead, gen(), targets(sae))
    live = torch.ones(D_SAE, dtype=torch.bool).index_fill(0, dead, False)
    assert changed.tolist() == dead.tolist()
    assert (sae.W_enc[:, dead] != before["W_enc"][:, dead]).any(dim=0).all()
    assert (sae.W_dec[dead] != before["W_dec"][dead]).any(dim=1).all()
    assert torch.equal(sae.W_enc[:, live], before["W_enc"][:, live])
    assert torch.equal(sae.W_dec[live], before["W_dec"][live])


def test_explained_variance_is_centred_on_each_dimension_and_not_on_one_scalar():
    """Against one global mean, predicting each dimension's mean looked like 0.99 of the variance."""
    x = torch.linspace(-100, 100, D_IN) + torch.randn(500, D_IN, generator=gen())
    fvu = StreamingFVU()
    fvu.update(x, x.mean(0).expand_as(x))
    assert fvu.value() == pytest.approx(1.0)


def test_a_constant_error_is_not_free():
    """var(residual) / var(x) removes the mean error first."""
    x = torch.randn(500, D_IN, generator=gen())
    fvu = StreamingFVU()
    fvu.update(x, x + 3.0)
    assert fvu.value() == pytest.approx((9.0 * 500 * D_IN) / (x - x.mean(0)).square().sum().item(), rel=1e-5)


def test_a_reader_that_runs_dry_is_an_error_and_not_the_same_rows_again():
    """A buffer that never refilled trained on its first rows for the whole run."""
    sae = build("topk")
    with pytest.raises(ValueError, match="ended after 3 of n_steps=5"):
        list(train(sae, [batch(sae, seed=n) for n in range(3)], TrainConfig(n_steps=5, init_rows=64)))


@pytest.mark.parametrize("case", CASES)
def test_unit_norms_are_those_of_latents_and_not_of_input_dimensions(case):
    """Normalising the wrong axis of W_dec left latents at norm 0.5."""
    sae = moved(case)
    if sae.cfg.decoder_norm == "unit":
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE).double())
        assert (sae.W_dec.norm(dim=0) - 1).abs().max() > 0.1


def test_numbers_of_a_step_are_of_that_step_and_not_a_sum_over_a_cleared_window():
    """Running averages cleared every step and divided by the logging interval under-reported FVU."""
    sae = build("topk")
    data = [batch(sae, n=256, seed=n).float() for n in range(20)]
    *_, last = train(sae, data, TrainConfig(n_steps=20, init_rows=64, lr=1e-6))
    assert last.fvu.item() == pytest.approx(evaluate(sae, data[-1:]).fvu, rel=1e-3)


def test_evaluating_changes_nothing():
    """Dead counters and thresholds moved at inference."""
    for case in CASES:
        sae = moved(case)
        before = {name: value.clone() for name, value in sae.state_dict().items()}
        target = targets(sae)
        evaluate(sae, [rows() if target is None else (rows(), target)])
        assert all(torch.equal(before[name], value) for name, value in sae.state_dict().items()), case


@pytest.mark.parametrize("case", CASES)
def test_terms_of_a_loss_do_not_hide_the_numbers_of_a_step(case):
    """A term called `step` took the place of the step in the log."""
    sae = build(case)
    (step,) = train(sae, [batch(sae)], TrainConfig(n_steps=1))
    assert step.numbers()["step"] == 1
    assert set(step.parts) & set(step._fields) == set()


@pytest.mark.parametrize("optimiser", ["adam", "muon", "schedule_free"])
def test_a_square_encoder_is_not_taken_for_its_transpose(optimiser):
    """Told by its shape, W_enc of as many latents as dimensions got the gradient of another weight."""

    def fvu(d_sae: int) -> float:
        sae = TopK(TopKConfig(d_in=D_IN, d_sae=d_sae, k=3))
        data = [rows(256, seed=n).float() for n in range(200)]
        list(train(sae, data, TrainConfig(n_steps=200, lr=1e-2, optimiser=optimiser, init_rows=512)))
        return evaluate(sae, data[-5:]).fvu

    assert fvu(D_IN) < 1.15 * fvu(D_IN - 1)


def test_resampling_forgets_moments_and_not_weights():
    """Schedule-free Adam keeps weights among its state: cleared, a resampled latent starts from 0."""
    sae = build("relu")
    data = [rows(128, seed=n).float() for n in range(20)]
    sae.initialise(torch.cat(data[:4]), gen())
    with torch.no_grad():
        sae.b_enc[:5] = -1e3
    cfg = TrainConfig(
        n_steps=20, lr=1e-3, optimiser="schedule_free", initialise=False, resample_at=(0.5,), dead_after_fraction=0.1,
        init_rows=128,
    )  # fmt: skip
    training = train(sae, data, cfg)
    for step in training:
        if step.step == 10:
            tensors = training.state().tensors
            z, W_dec = tensors["optimiser.W_dec.z"][:5], tensors["sae.W_dec"][:5]
            torch.testing.assert_close(z, W_dec)
            assert not tensors["optimiser.W_dec.exp_avg_sq"][:5].any()
    torch.testing.assert_close(training.state().tensors["optimiser.W_dec.z"].norm(dim=1), torch.ones(D_SAE))


def test_a_crosscoders_fvu_means_the_same_in_training_and_in_evaluation():
    """Raw, the site with the largest norm is all that counts."""
    sae = build("crosscoder")
    factor = torch.cat([torch.full((5,), 1000.0), torch.ones(7)])
    data = [rows(512, seed=n).float() * factor for n in range(100)]
    *_, last = train(sae, data, TrainConfig(n_steps=100, lr=1e-6, init_rows=512))
    assert evaluate(sae, data[-1:]).fvu == pytest.approx(last.fvu.item(), rel=0.02)


def test_entries_that_only_fill_up_do_not_cover_what_is_real():
    """They share a place, latent 0 of the last row, with an entry that may be there."""
    pattern = Pattern(torch.tensor([0, 0, 0]), torch.tensor([0, 0, 3]), 4)
    assert pattern.scattered(torch.tensor([0.9, 0.0, 0.0]))[1, 0] == 0.9


@pytest.mark.parametrize("case", ["topk", "batch_topk", "matryoshka"])
def test_fvu_in_float32_is_right_to_the_sixth_digit(case):
    """One float32 sum over a whole batch, along memory that is not contiguous, was off in the third."""
    cls = type(build(case))
    sae = cls(cls.config_cls(d_in=256, d_sae=512, k=8))
    x = 5 + torch.randn(4096, 256, generator=gen())
    sae.initialise(x, gen())
    exact = cls(sae.cfg).double()
    exact.load_state_dict(sae.state_dict())
    latents = sae.loss(x).latents
    x_hat = latents.dense().double() @ exact.W_dec + exact.b_dec
    wanted = (x_hat - x).square().sum() / (x.double() - x.double().mean(0)).square().sum()
    assert sae.loss(x).fvu.item() == pytest.approx(wanted.item(), rel=2e-6)
