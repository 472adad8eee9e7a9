"""Alignment of dictionaries whose truth was planted."""

import numpy as np
import pytest
import torch

from autointerp.align import (
    AlignConfig,
    Alignment,
    Nearness,
    by_activations,
    by_distance,
    by_vectors,
    embedded,
    judged,
    kept,
)
from autointerp.embedders import HashedEmbedder
from autointerp.matching.pairing import Pairs
from autointerp.statistics import clustered_mean, compare
from store.errors import UsageError
from store.matching import Matching

CFG = AlignConfig()
D_SAE, D_IN = 60, 32


def rows(seed: int, n: int = D_SAE) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed))


def noisy(base: torch.Tensor, noise: float, seed: int = 9) -> torch.Tensor:
    return base + noise * rows(seed, len(base))


ORDER = torch.from_numpy(np.random.default_rng(0).permutation(D_SAE))
SELF = Pairs(np.arange(D_SAE), np.arange(D_SAE), np.ones(D_SAE))


class TestPairs:
    def test_a_permuted_noisy_copy_is_recovered_by_weights(self):
        base = rows(0)
        pairs = kept(by_vectors(base, noisy(base, 0.1)[ORDER], CFG))
        assert ORDER[pairs.b].tolist() == pairs.a.tolist() == list(range(D_SAE))

    def test_dictionaries_with_nothing_in_common_keep_about_the_nulls_share(self):
        assert len(kept(by_vectors(rows(0), rows(1), CFG)).a) <= 0.05 * D_SAE

    def test_dead_latents_are_in_no_pair(self):
        base = rows(0)
        other = base.clone()
        other[:5] = 0
        pairs = kept(by_vectors(base, other, CFG))
        assert pairs.a.tolist() == list(range(5, D_SAE))

    def test_large_dictionaries_are_paired_by_being_each_others_nearest(self):
        base = rows(0)
        measured = by_vectors(base, noisy(base, 0.1)[ORDER], AlignConfig(max_paired=10))
        assert ORDER[kept(measured).b].tolist() == list(range(D_SAE))

    def test_rows_of_other_spaces_or_none_alive_are_refused(self):
        with pytest.raises(UsageError, match="width 32 and 8"):
            by_vectors(rows(0), rows(0)[:, :8], CFG)
        with pytest.raises(UsageError, match="no live row"):
            by_vectors(rows(0), torch.zeros(3, D_IN), CFG)

    def test_pairs_by_activations_are_the_matched_ones_of_the_matching(self, matching: Matching):
        pairs = by_activations(matching)
        n = matching.sql("SELECT count(*) AS n FROM one_to_one WHERE measure = 'correlation' AND matched")["n"][0]
        assert len(pairs.a) == n
        assert len(set(pairs.b)) == n


class TestExplanations:
    def test_alike_explanations_of_paired_latents_stand_out_from_random_pairings(self):
        words = [f"word{i} thing{i}" for i in range(D_SAE)]
        a = embedded(dict(enumerate(words)), D_SAE, HashedEmbedder())
        b = embedded({i: f"{text} too" for i, text in enumerate(words) if i != 3}, D_SAE, HashedEmbedder())
        found = judged(SELF, a, b, CFG)
        assert np.isnan(found.likeness[3])
        assert (found.mean.n_rows, found.mean.n_missing) == (D_SAE - 1, 1)
        assert found.above_null.difference is not None
        assert found.above_null.difference > 0.5
        assert found.above_null.p_value == pytest.approx(1 / (CFG.n_permutations + 1))
        assert set(found.table) == {"a", "b", "value", "likeness", "null"}

    def test_without_a_relation_p_values_are_not_small(self):
        p_values = [judged(SELF, rows(seed), rows(100 + seed), CFG).above_null.p_value or 0 for seed in range(40)]
        assert 0.35 < np.mean(p_values) < 0.65

    def test_the_null_of_a_pair_is_its_mean_likeness_to_all_other_partners(self):
        a, b = rows(0, 3), rows(1, 3)
        cosines = torch.nn.functional.normalize(a.double()) @ torch.nn.functional.normalize(b.double()).t()
        three = Pairs(np.arange(3), np.arange(3), np.ones(3))
        found = judged(three, a, b, CFG)
        assert found.null[0] == pytest.approx(float(cosines[0, 1:].mean()))
        assert found.likeness == pytest.approx(cosines.diagonal().numpy())

    def test_no_explanation_is_refused(self):
        with pytest.raises(UsageError, match="no latent is explained"):
            embedded({1: " "}, 4, HashedEmbedder())


class TestDistance:
    def test_nearby_layers_are_found_more_alike_than_far_ones(self):
        steps = [rows(0), *(0.5 * rows(20 + layer) for layer in range(1, 5))]
        layers = [sum(steps[: layer + 1], torch.zeros_like(steps[0])) for layer in range(5)]
        aligned = [(i, j, judged(SELF, layers[i], layers[j], CFG)) for i in range(5) for j in range(i + 1, 5)]
        found = by_distance(aligned)
        assert [each.layers_apart for each in found.distances] == [1, 2, 3, 4]
        assert [each.n_alignments for each in found.distances] == [4, 3, 2, 1]
        assert found.near_minus_far is not None
        assert found.near_minus_far.difference is not None
        assert found.near_minus_far.difference > 0
        # 5 layers have 60 orders that are not each other's reverse; this one is the rarest.
        assert found.near_minus_far.p_value == pytest.approx(1 / 60)
        assert (found.near_minus_far.n_near, found.near_minus_far.n_far) == (4, 1)

    def test_without_a_relation_to_distance_its_p_value_is_not_small_however_many_latents_there_are(self):
        p_values = [self._found(seed, 5).near_minus_far for seed in range(300)]
        small = np.mean([(each.p_value or 0.0) <= 0.05 for each in p_values if each is not None])
        assert small <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
        assert small > 0

    def test_few_layers_have_a_difference_and_no_p_value(self):
        found = self._found(0, 4).near_minus_far
        assert found is not None
        assert found.p_value is None
        assert (found.n_near, found.n_far) == (3, 1)

    def test_of_many_layers_orders_are_drawn(self):
        found = by_distance([(i, j, self._planted(1 / (j - i), 0)) for i in range(9) for j in range(i + 1, 9)])
        assert found.near_minus_far is not None
        assert (found.near_minus_far.p_value or 1) < 0.01

    @staticmethod
    def _planted(likeness: float, seed: int) -> Alignment:
        """An alignment of 200 latents, as alike as told; nothing but noise tells them apart."""
        values = likeness + np.random.default_rng(seed).normal(0, 0.01, 200)
        same, zero = np.arange(200), np.zeros(200)
        mean, above = clustered_mean(values.tolist(), range(200)), compare({}, {})
        return Alignment(Pairs(same, same, zero), values, zero, mean, above)

    def _found(self, seed: int, n_layers: int) -> Nearness:
        """Likeness that differs from layer to layer and from pair to pair, whatever lies between."""
        random = np.random.default_rng(seed)
        of_layer = random.normal(0, 0.1, n_layers)
        return by_distance(
            [
                (i, j, self._planted(of_layer[i] + of_layer[j] + random.normal(0, 0.1), seed))
                for i in range(n_layers)
                for j in range(i + 1, n_layers)
            ]
        )

    def test_one_distance_has_nothing_to_be_compared_with_and_none_is_refused(self):
        alone = by_distance([(3, 4, judged(SELF, rows(0), rows(0), CFG))])
        assert alone.near_minus_far is None
        assert alone.distances[0].above_null.interval is None
        with pytest.raises(UsageError, match="no two layers"):
            by_distance([])
