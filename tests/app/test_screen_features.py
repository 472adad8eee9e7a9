"""Features: searched, filtered by anything, drawn on maps, kept as views, and worked on many at a time."""

import shlex
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.feature_table import FeatureTable, Filters, NotesOf, notes_of
from app.region import Region, drawn_region, read_region
from app.web import state
from app.workbench import Workbench
from store.errors import UsageError
from store.index import publish
from store.notes import Notes


@pytest.fixture(scope="module", autouse=True)
def _one_worker():
    yield
    state._worker.clear()


@pytest.fixture
def sae(rich_root) -> str:
    return Workbench.open(rich_root).run.inputs["sae"]


def latents(at: AppTest) -> list[int]:
    assert not at.exception
    return at.dataframe[0].value["latent"].tolist() if at.dataframe else []


def select(at: AppTest, **selection: list) -> AppTest:
    """Tick rows of the table, or click a cell."""
    key = at.dataframe[0].proto.id.split("-", 2)[2]
    at.session_state[key] = {"selection": {"rows": [], "columns": [], "cells": [], **selection}}
    return at.run()


def submit(at: AppTest, label: str) -> AppTest:
    return next(button for button in at.button if button.label == label).click().run()


@pytest.mark.parametrize(
    ("by", "query", "found"),
    [("explanation", "boats", [3]), ("explanation", "fires sort*", [5]), ("meaning", "boats and harbours", [3])],
)
def test_explanations_are_searched_by_word_and_by_meaning(dashboard, by, query, found):
    settings = {"embedder": "hashed"} if by == "meaning" else {}
    at = dashboard("features", q=query, by=by, **settings)
    assert latents(at)[:1] == found
    assert any(caption.value.startswith(f"Search by {by}:") for caption in at.caption)


def test_text_search_ranks_by_evidence_and_shows_it(dashboard, runs_root):
    at = dashboard("features", q="boats", by="text", alive="false")
    expected = Workbench.open(runs_root).search("boats", by="text", n=500)
    assert latents(at) == expected["latent"].head(50).tolist()
    assert at.dataframe[0].value["bits"].tolist() == expected["bits"].head(50).tolist()


def test_a_search_can_be_sorted_and_filtered_too(dashboard):
    by_density = dashboard("features", q="boats", by="text", sort="density", order="low first")
    assert by_density.dataframe[0].value["density"].is_monotonic_increasing
    scored = dashboard("features", q="boats", by="text", scored="true")
    assert set(latents(scored)) <= {3}


def test_a_token_search_that_finds_nothing_says_so(dashboard):
    at = dashboard("features", q="zebra", by="token")
    assert at.info[0].value == "No latent passes these filters."


def test_a_bad_expression_is_one_line(dashboard):
    at = dashboard("features", q="(", by="text", regex="true")
    assert not at.exception
    assert "cannot be read" in at.error[0].value


def test_any_column_filters_and_sorts(dashboard, runs_root):
    at = dashboard("features", sql="doc_entropy > 0.5 AND q99 > 1 ORDER BY skewness", alive="false")
    query = """SELECT latent FROM features JOIN latents USING (latent)
    WHERE features.doc_entropy > 0.5 AND q99 > 1 ORDER BY features.skewness, latent"""
    assert latents(at) == Workbench.open(runs_root).sql(query)["latent"].tolist()
    assert dashboard("features", sort="q999").dataframe[0].value["q999"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("densty < 1", "Candidate bindings"),
        ("SELECT 1", "whole query"),
        ("true; DROP TABLE latents", "Parser Error"),
        ("density < ?", "query cannot be answered"),
        ("latent IN (SELECT * FROM read_csv('/etc/passwd'))", "query cannot be answered"),
        ("true ORDER BY max ORDER BY min", "stands twice"),
    ],
)
def test_sql_that_cannot_be_answered_is_one_line(dashboard, typed, said):
    at = dashboard("features", sql=typed)
    assert not at.exception
    assert len(at.error) == 1
    assert said in at.error[0].value.replace("\\", "")


def test_sql_that_takes_too_long_is_stopped(runs_root, monkeypatch):
    index = Workbench.open(runs_root).index
    monkeypatch.setattr(index, "timeout_s", 0.3)
    table = FeatureTable(index)
    slow = "(SELECT count(*) FROM range(1000000) a, range(1000000) b) > latent"
    with pytest.raises(UsageError, match="longer than"):
        table.passing(Filters(sql=slow), NotesOf())


@pytest.mark.parametrize("sort", ["relevance", "score", "score above null", "density", "latent", "label", "rating"])
def test_passing_is_in_order_and_whole(runs_root, fixture_index, sort):
    table, columns = FeatureTable(Workbench.open(runs_root).index), {"relevance": "score", "score above null": "chance"}
    order = f'f."{columns.get(sort, sort)}" ASC NULLS LAST'
    found = table.passing(Filters(), NotesOf((5,), ("a",), (2.0,), ("",)), order)
    assert sorted(found.tolist()) == list(range(fixture_index.D_SAE))
    assert table.rows(found, NotesOf())["latent"].tolist() == found.tolist()


def test_nonsense_in_the_url_is_ignored_or_one_line(dashboard, fixture_index):
    nonsense = {"sort": "zzz", "cols": "foo", "page": "77", "from": "abc", "list": "no", "by": "no", "within": "abc"}
    at = dashboard("features", map="no", order="up", **nonsense)
    assert len(latents(at)) == fixture_index.D_SAE - len(fixture_index.DEAD)
    assert "is no region" in at.warning[0].value


def test_columns_are_chosen_in_the_url(dashboard):
    at = dashboard("features")
    at.multiselect(key="cols").set_value(["latent", "skewness"]).run()
    assert at.dataframe[0].proto.arrow_data is not None
    assert not at.exception


def test_a_region_is_a_filter_of_the_table(dashboard, rich_root):
    square = Region("decoder plane", ((1.5, -5.5), (5.5, -5.5), (5.5, -1.5), (1.5, -1.5)))
    at = dashboard("features", rich_root, map="decoder plane", within=str(square), sort="latent", order="low first")
    assert latents(at) == [2, 3, 4, 5]
    assert "4 of 28" in at.info[0].value
    submit(at, "All again")
    assert len(latents(at)) == 28


def test_what_is_drawn_becomes_the_region(dashboard, rich_root):
    at = dashboard("features", rich_root, map="decoder plane", sort="latent", order="low first")
    at.session_state["chart decoder plane 0"] = {
        "selection": {
            "points": [],
            "point_indices": [],
            "box": [],
            "lasso": [{"x": [1.5, 5.5, 5.5, 1.5], "y": [-5.5, -5.5, -1.5, -1.5], "xref": "x", "yref": "y"}],
        }
    }
    at.run()
    assert latents(at) == [2, 3, 4, 5]
    assert at.query_params["within"] in ("decoder plane:1.5:-5.5:5.5:-5.5:5.5:-1.5:1.5:-1.5",)


def test_a_point_that_is_clicked_opens_its_feature(dashboard, rich_root):
    at = dashboard("features", rich_root, map="decoder plane")
    point = {"customdata": [11, 0.1, -1], "x": 11, "y": -11}
    at.session_state["chart decoder plane 0"] = {"selection": {"points": [point], "box": [], "lasso": []}}
    at.run()
    assert at.title[0].value == "Latent 11"


def test_a_map_without_points_says_how_to_make_them(dashboard):
    at = dashboard("features", map="decoder plane")
    assert any("monosem plane" in info.value for info in at.info)


def test_a_region_has_what_lies_in_it():
    star = Region("m", ((0, 0), (4, 0), (4, 4), (2, 1), (0, 4)))
    x, y = np.array([1.0, 2.0, 3.0, 2.0, 9.0]), np.array([1.0, 3.0, 1.0, 0.5, 1.0])
    assert star.has(x, y).tolist() == [True, False, True, True, False]
    assert read_region(str(star)).corners == star.corners


def test_a_long_lasso_is_made_short_enough_for_a_url():
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    drawn = drawn_region("m", {"lasso": [{"x": np.cos(angle).tolist(), "y": np.sin(angle).tolist()}], "box": []})
    assert drawn is not None
    assert len(str(drawn)) < 3000
    assert drawn.has(np.array([0.0, 0.9, 1.1]), np.array([0.0, 0.0, 0.0])).tolist() == [True, True, False]


def test_a_view_is_saved_and_found_again(dashboard, rich_root, sae):
    at = dashboard("features", rich_root, to="0.1", scored="true", page="1")
    next(box for box in at.text_input if box.label == "Save this view as").set_value("rare *and* scored")
    submit(at, "Save")
    assert not at.exception
    (view,) = Notes(rich_root).views(sae)
    assert (view.name, parse_qs(view.query)) == ("rare *and* scored", {"to": ["0.1"], "scored": ["true"]})
    link = at.get("page_link")[0].proto
    assert "rare" in link.label
    assert parse_qs(link.query_string) == {"to": ["0.1"], "scored": ["true"]}


def test_ticked_latents_are_labelled_and_listed_and_the_table_shows_it(dashboard, rich_root, sae):
    at = dashboard("features", rich_root, sort="latent", order="low first")
    select(at, rows=[1, 2])
    next(box for box in at.text_input if box.label == "Label").set_value("early ones")
    submit(at, "Label 2")
    notes = Notes(rich_root)
    assert [(each.latent, each.text) for each in notes.labels(sae)] == [(1, "early ones"), (2, "early ones")]
    assert len({each.made_at for each in notes.labels(sae)}) == 1, "it is one note"
    select(at, rows=[2])
    next(box for box in at.text_input if box.label == "List").set_value("a, list")
    submit(at, "Add 1")
    assert notes.lists(sae) == {"a, list": [2]}
    at = dashboard("features", rich_root, list="a, list")
    assert at.dataframe[0].value[["latent", "label", "lists"]].values.tolist() == [[2, "early ones", "a, list"]]
    assert latents(dashboard("features", rich_root, sql="label = 'early ones' AND rating IS NULL")) == [1, 2]
    assert latents(dashboard("features", rich_root, q="EARLY")) == [1, 2]


def test_the_command_that_explains_names_what_is_ticked(dashboard, rich_root):
    at = select(dashboard("features", rich_root, sort="latent", order="low first"), rows=[0, 3])
    assert at.code[0].value.endswith("--latents 0 3")
    assert Workbench.open(rich_root).run.id in at.code[0].value


def test_the_command_that_explains_can_be_pasted(dashboard, fixture_index, tmp_path):
    root = tmp_path / "my $runs"
    index = fixture_index.build_workbench(root)
    at = select(dashboard("features", root, sort="latent", order="low first"), rows=[0, 3])
    words = ["monosem", "explain", "--root", str(root), "--index-run", index.id, "--latents", "0", "3"]
    assert shlex.split(at.code[0].value) == words


def test_the_form_that_explains_is_filled_in(dashboard, rich_root):
    at = select(dashboard("features", rich_root, sort="latent", order="low first"), rows=[0, 3])
    link = next(link.proto for link in at.get("page_link") if link.proto.page == "interpret")
    form = dashboard("interpret", rich_root, **{name: one for name, (one,) in parse_qs(link.query_string).items()})
    assert not form.exception
    assert "--latents 0 3 " in form.code[0].value


def test_read_only_leaves_out_whatever_writes(dashboard, rich_root, monkeypatch):
    monkeypatch.setenv("MONOSEM_READ_ONLY", "1")
    at = dashboard("features", rich_root)
    assert latents(at)
    assert {box.label for box in at.text_input} == {"Search", "Condition in SQL"}
    assert not at.code


def test_notes_are_columns(rich_root, sae):
    notes = Notes(rich_root)
    notes.label(sae, 3, "boats", "ada")
    notes.label(sae, 3, "ships", "bob")
    notes.rate(sae, 3, 4, "ada")
    notes.rate(sae, 3, 1, "bob")
    notes.add_to_list(sae, "sea", [9], "ada")
    assert notes_of(notes, sae) == NotesOf((3, 9), ("boats, ships", None), (2.5, None), (None, "sea"))


def test_pages_follow_each_other_and_a_new_filter_begins_at_the_first(dashboard, monkeypatch):
    monkeypatch.setattr("app.feature_table.PAGE_SIZE", 10)
    at = dashboard("features", sort="latent", order="low first", page="3")
    third = latents(at)
    assert len(third) == 8
    assert third[0] > latents(dashboard("features", sort="latent", order="low first", page="2"))[-1]
    at.selectbox(key="sort").set_value("density").run()
    assert len(latents(at)) == 10
    assert at.session_state["page"] == 1


@pytest.mark.parametrize("by", ["explanation", "meaning"])
def test_where_nothing_is_explained_a_search_says_so(dashboard, fixture_index, tmp_path, by):
    fixture_index.build_workbench(tmp_path, explained=False)
    at = dashboard("features", tmp_path, q="boats", by=by)
    assert not at.exception
    assert len(at.error) == 1
    assert "explain" in at.error[0].value


def test_what_is_published_during_a_session_is_there_at_the_next_click(dashboard, fixture_index, tmp_path):
    index = fixture_index.build_workbench(tmp_path, explained=False)
    at = dashboard("features", tmp_path, explained="true")
    assert at.info[0].value == "No latent passes these filters."
    fixture_index._write_explanations(tmp_path, index)
    publish(index)
    at.run()
    assert sorted(latents(at)) == [3, 4, 5, 6]
