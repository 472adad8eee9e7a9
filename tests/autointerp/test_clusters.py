"""Clusters: average linkage of decoder directions, and evidence pooled over their members."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from app.workbench import Workbench
from autointerp import clusters as module
from autointerp.clusters import Cluster, ClusterConfig, clusters, explain_cluster, grouped, per_member, pooled
from autointerp.explain.tokens import TokensExplainer
from autointerp.latent import Evidence, Explanation
from store.errors import UsageError
from store.latents import Logit, Window


def window(doc_id: int, value: float, seq: int = 0, word: str = " cat") -> Window:
    return Window("q1", value, doc_id, "s", "t", "train", seq, 0, 1, ("a", word), (0, 1), (0.0, value))


def evidence(latent: int, scale: float, n: int = 6) -> Evidence:
    windows = tuple(window(10 * latent + i, scale * (n - i), seq=10 * latent + i) for i in range(n))
    return Evidence(latent, windows, (Logit(1, " purr", 2.0), Logit(latent, f" t{latent}", 1.0)), (), top=windows[:2])


def listed(cosines: dict[tuple[int, int], float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(list(cosines), np.int64).reshape(-1, 2), np.array(list(cosines.values()), float)


def test_near_directions_are_one_cluster_and_far_ones_are_in_none():
    pairs = listed({(3, 9): 0.9, (9, 3): 0.9, (3, 20): 0.8, (9, 20): 0.7, (5, 6): 0.65, (1, 2): 0.1})
    found = grouped(*pairs, 0.6)
    assert [cluster.latents for cluster in found] == [(3, 9, 20), (5, 6)]
    assert [cluster.medoid for cluster in found] == [3, 5]
    assert found[0].cosine == pytest.approx(0.8)


def test_a_chain_is_cut_where_the_mean_cosine_falls_short():
    chain = listed({(0, 1): 0.9, (1, 2): 0.65, (2, 3): 0.9})
    assert [cluster.latents for cluster in grouped(*chain, 0.6)] == [(0, 1), (2, 3)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0.2, 0.9))
def test_clustering_component_by_component_is_clustering_everything(seed: int, cut: float):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(4, 3))[random.integers(0, 4, 14)] + 0.5 * random.normal(size=(14, 3))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T
    label = fcluster(linkage(squareform(1 - cosine, checks=False), "average"), 1 - cut, "distance")
    expected = {tuple(np.flatnonzero(label == each).tolist()) for each in np.unique(label)}
    first, second = np.triu_indices(14, 1)
    found = grouped(np.stack([first, second], axis=1), cosine[first, second], cut)
    assert {cluster.latents for cluster in found} == {each for each in expected if len(each) > 1}


def test_too_many_at_once_says_what_to_raise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LARGEST", 2)
    with pytest.raises(UsageError, match=r"3 latents hang together at a cosine of 0\.6.*raise --min-cosine"):
        grouped(*listed({(0, 1): 0.9, (1, 2): 0.9}), 0.6)


def test_no_pairs_are_no_clusters():
    assert grouped(*listed({}), 0.6) == []


def test_an_index_gives_clusters_of_the_latents_asked_for(tiny_root: Path):
    index = Workbench.open(tiny_root).index
    rows = index.arrow("SELECT * FROM neighbours WHERE side = 'decoder' AND rank = 0 ORDER BY cosine DESC").to_pylist()
    a, b, cosine = rows[0]["latent"], rows[0]["other"], rows[0]["cosine"]
    found = clusters(index, [a, b], ClusterConfig(min_cosine=cosine - 0.01))
    assert [cluster.latents for cluster in found] == [tuple(sorted((a, b)))]
    assert found[0].cosine == pytest.approx(cosine)
    assert clusters(index, [a], ClusterConfig(min_cosine=-1.0)) == []


PAIR = Cluster((1, 2), 2, 0.9)


class TestPooled:
    def test_members_have_equal_shares_whatever_their_scales(self):
        found = pooled(PAIR, [evidence(1, 1.0), evidence(2, 1000.0)], 6)
        assert found.latent == 2
        assert sorted(each.doc_id // 10 for each in found.windows) == [1, 1, 1, 2, 2, 2]
        assert [each.value for each in found.windows] == sorted((each.value for each in found.windows), reverse=True)
        assert {each.value for each in found.windows} == {1.0, 4 / 6, 1 / 6}
        assert all(each.values[each.peak] == each.value for each in found.windows)

    def test_an_odd_number_is_shared_out_whole(self):
        assert len(pooled(PAIR, [evidence(1, 1.0), evidence(2, 1.0)], 7).windows) == 7

    def test_a_place_of_two_members_is_shown_once(self):
        found = pooled(PAIR, [evidence(1, 1.0), replace(evidence(1, 5.0), latent=2)], 100)
        assert [each.doc_id for each in found.windows] == [10, 11, 12, 13, 14, 15]

    def test_what_members_agree_on_promoting_comes_first(self):
        one, other = (Evidence(i, (window(i, 1.0),), (Logit(7, " purr", 2.0), Logit(i, "x", 3.0)), ()) for i in (1, 2))
        found = pooled(PAIR, [one, other], 6)
        assert found.promoted == (Logit(7, " purr", 2.0), Logit(1, "x", 1.5))

    def test_silent_contexts_of_one_member_are_not_the_clusters(self):
        one = replace(evidence(1, 1.0), silent=(window(90, 0.0),))
        assert pooled(PAIR, [one, evidence(2, 1.0)], 6).silent == ()


def test_a_cluster_is_explained_once_and_the_explanation_is_of_every_member():
    members = [evidence(1, 1.0), evidence(2, 3.0)]
    found = asyncio.run(explain_cluster(TokensExplainer(), PAIR, members, ClusterConfig(n_contexts=8)))
    assert isinstance(found, Explanation)
    assert found.members == (1, 2)
    assert found.input_text == "Fires on “cat” (8 of 8 contexts). Comes after “a” (8 of 8)."
    assert [each.latent for each in per_member(found)] == [1, 2]
    assert {each.text for each in per_member(found)} == {found.text}
