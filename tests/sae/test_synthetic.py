"""Toy superposition: the SAE finds the features, and a dictionary that saw no data does not."""

import pytest
import torch

from sae import TopK, TopKConfig
from sae.synthetic import Superposition, SuperpositionConfig, mean_max_cosine
from sae.train import TrainConfig, train

torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def toy(generator) -> Superposition:
    return Superposition(SuperpositionConfig(n_features=48, d_in=24, mean_active=2.0), generator)


def test_topk_recovers_the_features_and_a_random_dictionary_does_not(toy, generator):
    sae = TopK(TopKConfig(d_in=24, d_sae=64, k=3))
    batches = [toy.sample(256, generator).x for _ in range(300)]
    sae.initialise(torch.cat(batches[:8]), torch.Generator().manual_seed(0))
    random = mean_max_cosine(sae.W_dec, toy.features)
    for _ in train(sae, batches, TrainConfig(n_steps=300, lr=5e-3, initialise=False)):
        pass
    assert mean_max_cosine(sae.W_dec, toy.features) >= 0.9
    assert random < 0.6


def test_an_sae_with_the_same_seed_does_not_start_at_the_answer(toy):
    """Guards against features and initial decoder drawn from one random stream, which makes recovery trivial."""
    sae = TopK(TopKConfig(d_in=24, d_sae=48, k=3))
    sae.initialise(torch.zeros(2, 24), torch.Generator().manual_seed(0))
    assert mean_max_cosine(sae.W_dec, toy.features) < 0.6


def test_samples_are_their_coefficients_times_the_features(toy, generator):
    x, coefficients = toy.sample(2000, generator)
    torch.testing.assert_close(x, coefficients @ toy.features)
    assert (coefficients >= 0).all()
    assert (coefficients > 0).sum(dim=1).float().mean().item() == pytest.approx(2.0, abs=0.15)


def test_same_seed_same_sample(toy):
    first = toy.sample(10, torch.Generator().manual_seed(4)).x
    assert torch.equal(first, toy.sample(10, torch.Generator().manual_seed(4)).x)


def test_mean_max_cosine_ignores_order_and_length_but_not_sign(toy):
    assert mean_max_cosine(3 * toy.features.flip(0), toy.features) == pytest.approx(1.0)
    assert mean_max_cosine(-toy.features[:1], toy.features[:1]) == pytest.approx(-1.0)


@pytest.mark.parametrize("wrong", [{"d_in": 64}, {"mean_active": 0.0}, {"mean_active": 65.0}, {"min_coefficient": 2.0}])
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SuperpositionConfig(**wrong)
