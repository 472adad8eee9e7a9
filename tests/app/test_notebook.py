"""The notebook surface on the small workbench, with the tiny model."""

import pytest

from app.notebook import open_workbench
from store.errors import UsageError


@pytest.fixture(scope="module")
def wb(runs_root):
    return open_workbench(runs_root)


def test_features_are_filtered_by_sql(wb):
    assert (wb.features("density < 0.1")["density"] < 0.1).all()


def test_a_feature_shows_itself_as_a_card(wb, fixture_index):
    html = wb.feature(fixture_index.SCORED)._repr_html_()
    assert "fires on boats and harbours" in html
    assert "<script" not in html


def test_contexts_say_their_band_and_document(wb, fixture_index):
    contexts = wb.feature(fixture_index.SCORED).contexts("q1")
    assert list(contexts.columns) == ["band", "value", "text", "source", "title", "doc_id", "split"]
    assert set(contexts["band"]) == {"q1"}


def test_logits_name_their_side(wb):
    assert set(wb.feature(0).logits()["side"]) == {"top", "bottom"}


def test_explanations_and_scores_are_tables(wb, fixture_index):
    feature = wb.feature(fixture_index.SCORED)
    assert list(feature.explanations()["method"]) == ["counts"]
    assert set(feature.scores()["arm"]) == {"explanation", "shuffled"}


def test_a_dead_latent_has_empty_tables_and_a_card(wb, fixture_index):
    feature = wb.feature(fixture_index.DEAD[0])
    assert "Never fired" in feature._repr_html_()
    assert feature.contexts().empty
    assert feature.histogram().data == ()


def test_an_inspected_text_shows_its_strongest_latents(wb):
    found = wb.inspect("Ahoy <b>\n")
    assert f"latent {found.top(1)['latent'].iloc[0]}<" in found._repr_html_()
    assert "<b>" not in found.tokens_html(int(found.top(1)["latent"].iloc[0]))


def test_a_steered_text_stands_beside_the_clean_one(wb, fixture_index):
    steered = wb.steer("Ahoy", fixture_index.SCORED, 5.0, n_tokens=12, seed=3)
    html = steered._repr_html_()
    assert "Clean" in html
    assert "the same seed, 3, for both" in html
    assert f"latent {fixture_index.SCORED} clamped to 5 × q99.9, on every token but the first" in html
    assert f"changed on {sum(steered.steering.altered)} of {len(steered.steering.altered)} tokens" in html


def test_the_workbench_says_what_it_is(wb, fixture_index):
    assert fixture_index.HOOK_POINT in wb._repr_html_()


def test_a_missing_index_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="no finished index run"):
        open_workbench(tmp_path)
