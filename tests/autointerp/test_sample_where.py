"""What is asked for of many latents together is what each has of its own."""

from pathlib import Path

import pytest

from app.workbench import Workbench
from autointerp import sample, sample_where
from autointerp.sample import SampleConfig, Sampler
from autointerp.sample_where import Logits, Where
from store.feature_index import FeatureIndex

CFG = SampleConfig(min_contexts=3, min_docs=2, max_density=0.5)


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> FeatureIndex:
    return Workbench.open(tiny_root).index


@pytest.mark.parametrize("at_once", [1, 1000, 10**9])
def test_latents_with_enough_contexts_do_not_depend_on_how_many_events_are_looked_through_together(
    index: FeatureIndex, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    expected = Sampler(index, CFG).eligible()
    monkeypatch.setattr(sample, "AT_ONCE", at_once)
    assert Sampler(index, CFG).eligible() == expected
    assert 0 < len(expected) < index.n_latents


def test_every_latent_lies_where_its_row_says(index: FeatureIndex):
    where = Where(index, 3)
    rows = index.arrow("SELECT latent, part, first_row, n_events, event_share FROM latents").to_pylist()
    for row in rows:
        found = where.of(row["latent"])
        assert found is not None
        assert found.rows == (row["part"], row["first_row"], row["n_events"])
        assert found.complete == (row["event_share"] == 1)
    assert [where.of(latent) for latent in (-1, len(rows))] == [None, None]


def test_the_nearest_are_those_of_the_index_nearest_first(index: FeatureIndex):
    where = Where(index, 3)
    query = "SELECT other, cosine FROM neighbours WHERE latent = ? AND side = 'decoder' AND rank < 3 ORDER BY rank"
    for latent in range(index.n_latents):
        expected = [(row["other"], row["cosine"]) for row in index.arrow(query, [latent]).to_pylist()]
        assert [(found.latent, cosine) for found, cosine in where.nearest(latent)] == expected


@pytest.mark.parametrize("together", [1, 5, 256])
def test_logits_are_the_latents_own_in_whatever_order_they_are_asked_for(
    index: FeatureIndex, monkeypatch: pytest.MonkeyPatch, together: int
):
    monkeypatch.setattr(sample_where, "TOGETHER", together)
    logits = Logits(index)
    query = "SELECT token_id, token, value FROM logits WHERE latent = ? AND side = ? ORDER BY rank"
    for latent in (0, index.n_latents - 1, 3, 4, 5, 0, index.n_latents):
        for side, found in zip(("top", "bottom"), logits.of(latent), strict=True):
            assert [each.__dict__ for each in found] == index.arrow(query, [latent, side]).to_pylist()
