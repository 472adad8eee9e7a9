"""Nearest directions of two checkpoints, beside random ones: copies are found, dead latents and zero rows left out."""

import numpy as np
import pytest
import torch

from autointerp.matching.nearest import d_sae, nearest_directions, products
from sae import checkpoint
from sae.topk import TopK, TopKConfig

D_SAE, D_IN = 24, 64


@pytest.fixture
def folders(tmp_path):
    """Two dictionaries, the second with the first's rows in reverse; its first row is all zeros."""
    torch.manual_seed(0)
    a, b = (TopK(TopKConfig(d_sae=D_SAE, d_in=D_IN, k=4)) for _ in range(2))
    with torch.no_grad():
        a.W_dec.copy_(torch.randn(D_SAE, D_IN))
        b.W_dec.copy_(a.W_dec.flip(0) * 3)
        b.W_dec[0] = 0
    for name, sae in {"a": a, "b": b}.items():
        checkpoint.save(tmp_path / name, sae)
    return tmp_path / "a", tmp_path / "b"


def test_a_copy_is_found_wherever_it_stands(folders):
    found = nearest_directions(*folders)
    here = found.a.latent != D_SAE - 1  # its copy has no direction
    assert found.a.other[here].tolist() == [D_SAE - 1 - one for one in found.a.latent[here]]
    assert found.a.cosine[here] == pytest.approx(1.0)
    assert found.b.latent.tolist() == list(range(1, D_SAE))


def test_chance_is_below_a_copy_and_above_the_rest(folders):
    found = nearest_directions(*folders)
    assert found.a.cosine[D_SAE - 1] < found.threshold < 0.9
    assert found.a.chance.shape == found.a.latent.shape
    assert np.quantile(np.concatenate([found.a.chance, found.b.chance]), 0.99) == found.threshold


def test_dead_latents_are_left_out_and_numbers_stay_those_of_the_dictionary(folders):
    alive = np.ones(D_SAE, bool)
    alive[[2, 5]] = False
    found = nearest_directions(*folders, alive_a=alive)
    assert not {2, 5} & set(found.a.latent.tolist())
    assert not {2, 5} & set(found.b.other.tolist())
    assert found.b.other[found.b.latent == D_SAE - 1 - 3].tolist() == [3]


def test_the_same_seed_draws_the_same_chance(folders):
    one, two, other = (nearest_directions(*folders, seed=seed) for seed in (0, 0, 1))
    assert one.a.chance.tolist() == two.a.chance.tolist()
    assert one.a.chance.tolist() != other.a.chance.tolist()


def test_other_widths_are_refused(folders, tmp_path):
    checkpoint.save(tmp_path / "c", TopK(TopKConfig(d_sae=8, d_in=32, k=4)))
    with pytest.raises(ValueError, match="two spaces"):
        nearest_directions(folders[0], tmp_path / "c")


def test_nothing_alive_is_refused(folders):
    with pytest.raises(ValueError, match="nothing to compare"):
        nearest_directions(*folders, alive_b=np.zeros(D_SAE, bool))


def test_the_work_is_known_before_it_is_done(folders):
    assert products(*folders) == D_SAE * D_SAE * D_IN
    assert d_sae(folders[0]) == D_SAE
