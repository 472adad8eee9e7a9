"""Recovery of planted features against brute force, counting by hand, and what it must not depend on."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sae.recovery import UNMATCHED, detection_f1, match, measure_recovery, read_by_projection
from sae.sparse import SparseLatents
from sae.synthetic import Superposed, Superposition, SuperpositionConfig, mean_max_cosine

torch.set_num_threads(1)

seeds = st.integers(0, 2**31)


def gaussian(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def brute_force_mcc(directions: Tensor, features: Tensor, absolute: bool) -> float:
    """The best of all assignments; features left over count 0."""
    n_latents, n = len(directions), len(features)
    slots = list(range(n_latents)) + [None] * max(0, n - n_latents)
    table = [[cosine(f, d) for d in directions] for f in features]
    table = [[abs(c) for c in row] for row in table] if absolute else table
    best = max(
        sum(table[i][slot] if slot is not None else 0.0 for i, slot in enumerate(chosen))
        for chosen in permutations(slots, n)
        # with too few latents each of them is used, as the assignment does
        if n_latents >= n or {s for s in chosen if s is not None} == set(range(n_latents))
    )
    return best / n


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n_latents=st.integers(1, 5), n_features=st.integers(1, 4), absolute=st.booleans())
def test_mcc_equals_the_best_of_all_assignments(seed, n_latents, n_features, absolute):
    directions, features = gaussian(n_latents, 3, seed), gaussian(n_features, 3, seed + 1)
    expected = brute_force_mcc(directions, features, absolute)
    assert match(directions, features, absolute=absolute).mcc == pytest.approx(expected)


def test_matching_by_hand():
    """Both features are nearest to latent 0; only one can have it. 0.8 + 0 beats 0.6 + ... in no other pairing."""
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    directions = torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    found = match(directions, features)
    # cosines: feature 0 with (0.8, 0.0), feature 1 with (0.96, 0.8)
    assert found.latents.tolist() == [0, 1]
    assert found.cosines.tolist() == pytest.approx([0.8, 0.8])
    assert found.mcc == pytest.approx(0.8)
    assert found.n_recovered(0.9) == 0
    assert found.n_recovered(0.79) == 2
    # the mean max cosine uses latent 0 twice
    assert mean_max_cosine(directions, features) == pytest.approx((0.8 + 0.96) / 2)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_mcc_ignores_order_and_length_and_with_absolute_the_sign(seed):
    directions, features = gaussian(9, 5, seed), gaussian(6, 5, seed + 1)
    scale = 0.1 + gaussian(9, 1, seed + 2).abs()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    base = match(directions, features)
    moved = match((scale * directions)[order], features)
    assert moved.mcc == pytest.approx(base.mcc)
    torch.testing.assert_close(order[moved.latents], base.latents)
    flipped = directions * gaussian(9, 1, seed + 3).sign()
    assert match(flipped, features, absolute=True).mcc == pytest.approx(match(directions, features, absolute=True).mcc)


def test_a_flipped_latent_does_not_count_unless_signs_are_ignored():
    features = torch.eye(3)
    assert match(-features, features, absolute=True).mcc == pytest.approx(1.0)
    assert match(-features, features).mcc <= 0
    assert match(-features, features).n_recovered() == 0


def test_two_features_that_share_a_latent_are_one_recovered():
    """Guards against counting by nearest neighbour, which one latent can satisfy many times."""
    features = torch.tensor([[1.0, 0.05], [1.0, -0.05]])
    assert match(torch.tensor([[1.0, 0.0]]), features).n_recovered() == 1
    assert match(torch.tensor([[1.0, 0.0]]), features).latents.tolist().count(UNMATCHED) == 1


def oracle_f1(fires: Tensor, present: Tensor) -> float:
    pairs = list(zip(fires.tolist(), present.tolist(), strict=True))
    tp, fp, fn = pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))
    precision, recall = tp / (tp + fp) if tp + fp else 0.0, tp / (tp + fn) if tp + fn else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(seed):
    present = gaussian(40, 3, seed) > 0.5
    values = torch.relu(gaussian(40, 7, seed + 1))
    latents = SparseLatents.of_table(values, torch.arange(7).expand(40, 7), 7)
    latent_of = torch.randperm(7, generator=torch.Generator().manual_seed(seed))[:3]
    expected = [oracle_f1(values[:, j] > 0, present[:, f]) for f, j in enumerate(latent_of.tolist())]
    assert detection_f1(latents, present, latent_of).tolist() == pytest.approx(expected)


def test_f1_by_hand_and_where_it_cannot_be_told():
    present = torch.tensor([[True, True, False, False]] * 2 + [[False, True, False, False]])
    # latent 0 fires in rows 0 and 2, latent 1 never; feature 1 has no latent
    latents = SparseLatents.of_table(torch.tensor([[1.0], [0.0], [2.0]]), torch.tensor([[0], [1], [0]]), 2)
    f1 = detection_f1(latents, present, torch.tensor([0, UNMATCHED, 0, 1]))
    assert f1.tolist() == pytest.approx([0.5, 0.0, 0.0, float("nan")], nan_ok=True)


@pytest.fixture
def world() -> tuple[Superposition, Superposed]:
    generator = torch.Generator().manual_seed(0)
    made = Superposition(SuperpositionConfig(n_features=40, d_in=32, mean_active=2.0), generator)
    return made, made.sample(3000, generator)


def test_the_truth_itself_is_recovered_whole(world):
    made, sample = world
    sae = read_by_projection(made.features, torch.zeros(32), 2)
    found = measure_recovery(sae, made.features, sample)
    assert found.mcc == pytest.approx(1.0)
    assert found.n_recovered == found.n_features == 40
    assert found.f1 > 0.7
    assert found.l0 == sae.encode(sample.x).l0().item()


def test_the_order_of_latents_changes_nothing_and_noise_less_than_chance_much(world):
    made, sample = world
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros(32)
    one, other = (read_by_projection(rows, zero, 2) for rows in (made.features, made.features[order]))
    assert measure_recovery(one, made.features, sample) == pytest.approx(measure_recovery(other, made.features, sample))
    random = measure_recovery(read_by_projection(gaussian(40, 32, 5).float(), zero, 2), made.features, sample)
    assert random.mcc < 0.5
    assert random.n_recovered == 0
    assert random.f1 < 0.4


def test_features_that_never_occur_are_counted_apart(world):
    made, sample = world
    without = Superposed(sample.x, torch.cat([sample.coefficients[:, :39], torch.zeros(3000, 1)], dim=1))
    directions = made.features.clone()
    directions[39] = 0.0
    found = measure_recovery(read_by_projection(directions, torch.zeros(32), 2), made.features, without)
    assert found.n_undefined == 1
    assert found.n_recovered == 39
