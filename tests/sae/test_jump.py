"""Learned thresholds: pseudo-gradients, the number of latents they aim at, and the atoms they recover."""

import pytest
import torch
from variants import D_IN, D_SAE, build, moved, rows

from sae import JumpReLUConfig, ReLU, ReLUConfig, Threshold, ThresholdConfig
from sae.jump import box, jump, step
from sae.metrics import evaluate
from sae.synthetic import Superposition, SuperpositionConfig
from sae.train import TrainConfig, train

torch.set_num_threads(1)


def test_pseudo_gradients_are_those_of_the_paper():
    """−θ/ε and −1/ε within ε/2 of the threshold on either side, nothing further off."""
    z = torch.tensor([0.5, 0.96, 1.04, 2.0], dtype=torch.float64).requires_grad_()
    theta = torch.ones(4, dtype=torch.float64).requires_grad_()
    epsilon = torch.tensor(0.1, dtype=torch.float64)
    dz, dtheta = torch.autograd.grad(jump(z, theta, epsilon).sum(), (z, theta))
    assert dz.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(dtheta, torch.tensor([0, -10, -10, 0], dtype=torch.float64))
    (dtheta,) = torch.autograd.grad(step(z, theta, epsilon).sum(), theta)
    torch.testing.assert_close(dtheta, torch.tensor([0, -10, -10, 0], dtype=torch.float64))
    assert box(z, theta, epsilon).sum() == 20


def test_the_pseudo_gradient_of_l0_is_that_of_its_expectation():
    """Over many pre-activations, the threshold's gradient is minus their density there."""
    z = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = torch.tensor(0.7, dtype=torch.float64).requires_grad_()
    mean = step(z, theta.expand(len(z)), torch.tensor(0.2, dtype=torch.float64)).mean()
    (found,) = torch.autograd.grad(mean, theta)
    density = torch.distributions.Normal(0, 1).log_prob(torch.tensor(0.7)).exp()
    assert found.item() == pytest.approx(-density.item(), rel=0.02)


@pytest.mark.parametrize("case", ["jumprelu", "threshold"])
def test_training_starts_near_the_target(case):
    sae = build(case)
    sae.initialise(rows(500).float(), torch.Generator().manual_seed(0))
    assert sae.encode(rows(500, seed=1).float()).l0().item() == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("case", ["jumprelu", "threshold"])
@pytest.mark.parametrize("target", [2.0, 6.0])
def test_training_ends_at_the_target(case, target):
    cls = type(build(case))
    sae = cls(cls.config_cls(d_in=D_IN, d_sae=D_SAE, target_l0=target))
    cfg = TrainConfig(n_steps=300, lr=3e-3, init_rows=512)
    data = [rows(256, seed=n).float() for n in range(300)]
    list(train(sae, data, cfg))
    assert evaluate(sae, data[-20:]).l0 == pytest.approx(target, rel=0.1)


@pytest.mark.parametrize("sparsity", ["step", "tanh"])
def test_a_larger_coefficient_makes_it_sparser(sparsity):
    def l0(coefficient: float) -> float:
        cfg = JumpReLUConfig(
            d_in=D_IN, d_sae=D_SAE, target_l0=8.0, sparsity=sparsity, l0_coefficient=coefficient, bandwidth=0.5
        )
        sae = type(build("jumprelu"))(cfg)
        data = [rows(256, seed=n).float() for n in range(150)]
        list(train(sae, data, TrainConfig(n_steps=150, lr=3e-3, init_rows=512)))
        return evaluate(sae, data[-10:]).l0

    assert l0(0.02) < 0.8 * l0(1e-4)


def test_thresholds_at_zero_make_a_relu_sae():
    sae = moved("threshold")
    relu = ReLU(ReLUConfig(d_in=D_IN, d_sae=D_SAE)).double()
    relu.load_state_dict({**sae.state_dict(), "b_enc": torch.zeros(D_SAE)}, strict=False)
    with torch.no_grad():
        sae.log_threshold.fill_(-60.0)
    torch.testing.assert_close(sae(rows()).x_hat, relu(rows()).x_hat)


def test_a_threshold_between_leak_and_coefficient_recovers_atoms_exactly():
    """Hu et al. 2025: with the true atoms, the support of every row is found if τ lies between what others leak and the
    smallest coefficient."""
    truth = Superposition(
        SuperpositionConfig(n_features=160, d_in=128, mean_active=1.2, min_coefficient=1.0),
        torch.Generator().manual_seed(0),
    )
    x, coefficients = truth.sample(2000, torch.Generator().manual_seed(1))
    sae = Threshold(ThresholdConfig(d_in=128, d_sae=160, target_l0=1.0))
    with torch.no_grad():
        sae.W_dec.copy_(truth.features)
        sae.W_enc.copy_(truth.features.t())
        sae.b_dec.zero_()
        sae.log_threshold.fill_(torch.tensor(0.72).log().item())
    found = sae.encode(x).dense() > 0
    exact = (found == (coefficients > 0)).all(dim=1).float().mean()
    assert exact > 0.97


@pytest.mark.parametrize("wrong", [{"target_l0": 0.0}, {"target_l0": D_SAE + 1.0}, {"bandwidth": 0.0}])
def test_impossible_settings_are_refused(wrong):
    for cls in (JumpReLUConfig, ThresholdConfig):
        with pytest.raises(ValueError, match="|".join(wrong)):
            cls(d_in=D_IN, d_sae=D_SAE, **{"target_l0": 4.0, **wrong})
