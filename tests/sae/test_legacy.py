"""Other libraries' formulas: where they agree with 1 − FVU, and which of their traps each has."""

import pytest
import torch
from torch import Tensor

from sae.legacy import LEGACY
from sae.metrics import StreamingFVU


def explained(x: Tensor, x_hat: Tensor) -> float:
    fvu = StreamingFVU()
    fvu.update(x, x_hat)
    return 1 - (fvu.value() or 0.0)


def rows(n: int = 4000, d: int = 50) -> tuple[Tensor, Tensor]:
    """Rows of mean 0 and unit variance, and reconstructions with a true explained variance near .9."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, x + 0.1**0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ["legacy_ev_saelens", "legacy_ev_dictionary_learning", "legacy_r2_overcomplete"])
def test_on_well_behaved_rows_they_agree(name: str):
    x, x_hat = rows()
    assert LEGACY[name](x, x_hat) == pytest.approx(explained(x, x_hat), abs=0.01)


def test_saebenchs_changes_with_the_unit_of_x():
    """True value .9 throughout. The reference reports .90, .79 and 1.58 for scales 1, 20 and 30 at width 512."""
    x, x_hat = rows(d=512)
    found = [LEGACY["legacy_ev_saebench"](x * scale, x_hat * scale) for scale in (1.0, 20.0, 30.0)]
    assert found[0] == pytest.approx(0.90, abs=0.005)
    assert found[2] > 1
    assert max(found) - min(found) > 0.5
    assert explained(x * 30, x_hat * 30) == pytest.approx(explained(x, x_hat), rel=1e-9)


def test_saebenchs_is_flattered_by_a_mean():
    x, x_hat = rows(d=512)
    assert LEGACY["legacy_ev_saebench"](x + 3, x_hat + 3) == pytest.approx(0.99, abs=0.01)
    assert explained(x + 3, x_hat + 3) == pytest.approx(0.90, abs=0.005)


def test_dictionary_learnings_does_not_see_a_constant_offset():
    x, x_hat = rows()
    assert LEGACY["legacy_ev_dictionary_learning"](x, x_hat + 5) == pytest.approx(explained(x, x_hat), abs=1e-3)
    assert explained(x, x_hat + 5) < 0


def test_overcompletes_rewards_predicting_each_dimensions_mean():
    x = rows()[0] + torch.arange(50) * 2.0
    mean = x.mean(dim=0).expand_as(x)
    assert LEGACY["legacy_r2_overcomplete"](x, mean) > 0.99
    assert explained(x, mean) == pytest.approx(0.0, abs=1e-9)


def test_saelens_is_decided_by_rows_near_the_mean():
    x, x_hat = rows()
    x[0] = x.mean(dim=0) + 1e-4
    x_hat[0] = x[0] + 1
    assert LEGACY["legacy_ev_saelens"](x, x_hat) < -100
    assert explained(x, x_hat) == pytest.approx(0.9, abs=0.01)


def test_openais_is_not_centred():
    x, x_hat = rows()
    assert LEGACY["legacy_nmse_openai"](x + 10, x_hat + 10) < 0.01
    assert LEGACY["legacy_nmse_openai"](x, x_hat) == pytest.approx(0.1, abs=0.01)
