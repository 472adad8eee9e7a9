"""Learning rates."""

import pytest

from sae.schedule import DECAYS, default_lr, lr_factor


def test_default_lr_is_2e_4_at_16384_latents_and_falls_with_the_root():
    assert default_lr(2**14) == pytest.approx(2e-4)
    assert default_lr(2**16) == pytest.approx(1e-4)


@pytest.mark.parametrize("shape", sorted(DECAYS))
@pytest.mark.parametrize(("warmup", "decay"), [(0.0, 0.0), (0.1, 0.2), (1.0, 0.0), (0.0, 1.0), (0.7, 0.7)])
@pytest.mark.parametrize("n_steps", [1, 2, 10, 701])
def test_factor_is_positive_and_at_most_one(n_steps, warmup, decay, shape):
    factors = [lr_factor(step, n_steps, warmup, decay, shape) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_factor_rises_stays_and_falls():
    factors = [lr_factor(step, 100, 0.1, 0.2) for step in range(100)]
    assert factors[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert set(factors[10:80]) == {1.0}
    assert factors[80:] == sorted(factors[80:], reverse=True)
    assert factors[-1] < 0.06
