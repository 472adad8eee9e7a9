"""The notebook surface on the small workbench, with the tiny model."""

import re

import numpy as np
import pandas as pd
import pytest

from app.notebook import EXAMPLES, Html, open_workbench
from store.errors import UsageError
from store.shards import TOKEN_CLASSES

TEXT = "Ahoy <b>\n</style><script>alert(1)</script> the harbour"

ELEMENTS = {"style", "div", "span", "b", "mark", "br", "h3", "h4", "table", "tbody", "tr", "td", "code"} | {
    *("thead", "th"),
    "svg",
    "rect",
    "title",
    "details",
    "summary",
}
"""Of which cards are made."""


@pytest.fixture(scope="module")
def wb(runs_root):
    return open_workbench(runs_root)


@pytest.fixture(scope="module")
def inspected(wb):
    return wb.inspect(TEXT)


class TestFeatures:
    def test_are_filtered_sorted_and_limited_by_one_string(self, wb):
        found = wb.features("density < .1 order by max desc limit 4")
        assert len(found) == 4
        assert (found["density"] < 0.1).all()
        assert found["max"].is_monotonic_decreasing

    def test_are_asked_for_by_arguments_too(self, wb):
        by_string = wb.features("not dead order by q50 limit 5 offset 2")
        assert by_string.equals(wb.features("not dead", order_by="q50", limit=5, offset=2))

    def test_the_scored_ones_come_first_by_score(self, wb, fixture_index):
        assert wb.features("order by score desc")["latent"][0] == fixture_index.SCORED

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ("densty < .1", '"densty" not found .*Candidate bindings: "density".*: `features` has latent density'),
            ("density < < .1", "syntax error.*`features` has latent"),
            ("density < .1; drop table features", "syntax error"),
            ("latent in (select 1 from read_csv('/etc/passwd'))", "Permission Error"),
            ("limit -1", "negative"),
        ],
    )
    def test_a_bad_question_is_one_line_with_a_way_out(self, wb, where, message):
        with pytest.raises(UsageError, match=message) as caught:
            wb.features(where)
        assert "\n" not in str(caught.value)


class TestSql:
    def test_is_a_data_frame(self, wb):
        assert wb.sql("SELECT count(*) AS n FROM latents WHERE latent < ?", [3])["n"].tolist() == [3]

    @pytest.mark.parametrize("query", ["SELECT nothing FROM latents", "COPY latents TO 'x.csv'", "SELECT"])
    def test_a_bad_query_is_one_line_with_a_way_out(self, wb, query):
        with pytest.raises(
            UsageError, match=r"cannot be answered: .*: `SHOW TABLES` and `DESCRIBE features`"
        ) as caught:
            wb.sql(query)
        assert "\n" not in str(caught.value)

    def test_the_way_out_is_one(self, wb):
        assert "features" in set(wb.sql("SHOW TABLES")["name"])
        assert list(wb.sql("DESCRIBE features")["column_name"]) == list(wb.features())


def test_search_is_the_workbenchs(wb):
    pd.testing.assert_frame_equal(wb.search("harbour", n=3), wb.workbench.search("harbour", n=3))
    with pytest.raises(UsageError, match="no search by 'smell'"):
        wb.search("harbour", by="smell")


class TestFeature:
    def test_shows_itself_as_a_card(self, wb, fixture_index):
        html = wb.feature(fixture_index.SCORED)._repr_html_()
        assert "fires on boats and harbours" in html
        assert '<svg class="ms-histogram"' in html

    @pytest.mark.parametrize(
        "number", [np.int32(3), np.uint64(3), pd.Series([3])[0]], ids=["int32", "uint64", "series"]
    )
    def test_is_found_by_a_number_of_a_data_frame(self, wb, number):
        assert wb.feature(number).latent == 3

    @pytest.mark.parametrize(("latent", "message"), [(-1, "choose 0 to"), ("3", "is no latent"), (1.5, "is no latent")])
    def test_there_is_none_but_those_of_the_dictionary(self, wb, latent, message):
        with pytest.raises(UsageError, match=message):
            wb.feature(latent)

    def test_examples_say_their_band_and_document(self, wb, fixture_index):
        examples = wb.feature(fixture_index.SCORED).examples(band="q1")
        assert tuple(examples.columns) == EXAMPLES
        assert set(examples["band"]) == {"q1"}

    def test_examples_are_where_they_say(self, wb, fixture_index):
        examples = wb.feature(fixture_index.SCORED).examples()
        events = wb.index.events(fixture_index.SCORED)
        fired = {place[:2]: place[2] for place in zip(events.seq, events.pos, events.value, strict=True)}
        peaks = examples[~examples["band"].isin(["near", "silent"])]
        assert len(peaks)
        assert [fired[place] for place in zip(peaks["seq"], peaks["pos"], strict=True)] == peaks["value"].tolist()
        assert all(token in text for token, text in zip(examples["token"], examples["text"], strict=True))

    def test_k_examples_are_the_first_of_all(self, wb, fixture_index):
        feature = wb.feature(fixture_index.SCORED)
        assert feature.examples(k=3).equals(feature.examples()[:3])
        assert feature.examples(3)["value"].max() == feature.page.statistics["max"]
        assert feature.examples_html(k=3).count("ms-context") - feature.examples_html(k=0).count("ms-context") == 3

    def test_a_band_keeps_its_name_when_it_is_shown_alone(self, wb, fixture_index):
        feature = wb.feature(fixture_index.SCORED)
        names = re.findall("<h4>(q1 .*?)</h4>", feature._repr_html_())
        assert names
        assert re.findall("<h4>(.*?)</h4>", feature.examples_html(k=2, band="q1")) == names

    def test_examples_of_no_band_are_refused(self, wb, fixture_index):
        with pytest.raises(UsageError, match=r"no band 'best': choose one of .*top"):
            wb.feature(fixture_index.SCORED).examples(band="best")
        with pytest.raises(UsageError, match="k=-1 is no number of rows"):
            wb.feature(fixture_index.SCORED).examples(k=-1)

    def test_logits_name_their_side(self, wb):
        assert set(wb.feature(0).logits()["side"]) == {"top", "bottom"}

    def test_explanations_and_scores_are_tables(self, wb, fixture_index):
        feature = wb.feature(fixture_index.SCORED)
        assert list(feature.explanations()["method"]) == ["counts"]
        assert set(feature.scores()["arm"]) == {"explanation", "shuffled"}

    def test_a_dead_one_has_empty_tables_and_a_card(self, wb, fixture_index):
        feature, other = wb.feature(fixture_index.DEAD[0]), wb.feature(fixture_index.SCORED)
        assert "Never fired" in feature._repr_html_()
        assert feature.examples(band="top").empty
        assert "no such contexts" in feature.examples_html()
        assert feature.histogram().data == ()
        for table in ("explanations", "scores"):
            assert getattr(feature, table)().empty
            assert list(getattr(feature, table)()) == list(getattr(other, table)())


class TestInspectedText:
    def test_shows_its_strongest_latents(self, inspected):
        assert f"latent {inspected.top(1)['latent'][0]}<" in inspected._repr_html_()

    def test_top_is_by_the_value_on_a_normal_token(self, inspected):
        normal = np.array(inspected.inspection.token_class) == TOKEN_CLASSES["normal"]
        found = inspected.top(k=None)
        assert found["value"].tolist() == [inspected.values(latent)[normal].max() for latent in found["latent"]]
        assert found["value"].is_monotonic_decreasing
        assert inspected.top(3).equals(found[:3])

    def test_a_share_is_of_the_latents_own_maximum(self, wb, inspected):
        found = inspected.top(k=None, by="share")
        most = wb.sql("SELECT max FROM latents ORDER BY latent")["max"][found["latent"]].to_numpy()
        known = most > 0
        assert known.any()
        np.testing.assert_allclose(found["share"][known], found["value"][known] / most[known])
        assert found["share"][~known].isna().all()
        assert not known[known.sum() :].any(), "those without a maximum are last"
        assert found["share"][known].is_monotonic_decreasing
        assert set(found["latent"]) == set(inspected.top(None)["latent"])

    def test_top_by_anything_else_is_refused(self, inspected):
        with pytest.raises(UsageError, match="by='rank' is no order of latents: choose value, share or quantile"):
            inspected.top(by="rank")
        with pytest.raises(UsageError, match="by='share' is no order of latents: choose value or quantile"):
            inspected.per_token(by="share")
        with pytest.raises(UsageError, match="k=-2"):
            inspected.top(-2)

    def test_a_quantile_is_among_the_latents_own_values(self, wb, inspected):
        found = inspected.top(k=None, by="quantile")
        known = found["quantile"].notna().to_numpy()
        assert known.any()
        assert not known[known.sum() :].any(), "those that never fired are last"
        assert found["quantile"][known].is_monotonic_decreasing
        for row in found[known].head(5).itertuples():
            events = wb.index.events(int(row.latent)).value
            counts = wb.workbench.page(int(row.latent)).histogram
            assert row.quantile == pytest.approx((events <= row.value).mean(), abs=counts.max() / counts.sum() + 1e-9)

    def test_every_token_has_its_figures_and_its_strongest_latents(self, inspected):
        for by in ("value", "quantile"):
            found = inspected.per_token(2, by)
            assert found["token"].tolist() == list(inspected.tokens)
            assert found["n_active"].sum() == len(inspected.inspection.latent)
            for row in found.head(12).to_dict("records"):
                own = inspected.inspection.at(row["pos"], 2, by)["latent"].tolist()
                assert [row["1"], row["2"]] == [*own, -1, -1][:2]
        assert found["loss"].isna().tolist() == [True] + [False] * (len(found) - 1)

    def test_the_matrix_has_every_activation(self, inspected):
        found = inspected.matrix()
        assert found.columns.tolist() == inspected.top(None)["latent"].tolist()
        assert found.index.get_level_values("token").tolist() == list(inspected.tokens)
        for latent in found.columns:
            assert found[latent].tolist() == inspected.values(latent).tolist()

    def test_the_matrix_has_the_latents_asked_for_in_their_order(self, wb, inspected):
        assert inspected.matrix([5, 2]).columns.tolist() == [5, 2]
        with pytest.raises(UsageError, match=f"no latent {wb.workbench.d_sae}: choose 0 to"):
            inspected.matrix([wb.workbench.d_sae])

    def test_a_silent_latent_is_zero_and_one_that_there_is_not_is_refused(self, wb):
        short = wb.inspect("A")
        silent = set(range(wb.workbench.d_sae)) - set(short.inspection.latent.tolist())
        assert short.values(silent.pop()).tolist() == [0.0] * len(short.tokens)
        for latent in (-1, wb.workbench.d_sae):
            with pytest.raises(UsageError, match=f"no latent {latent}: choose 0 to"):
                short.values(latent)

    def test_tokens_are_shaded_by_one_latent(self, inspected):
        latent = int(inspected.top(1)["latent"][0])
        values = inspected.values(latent)
        assert inspected.tokens_html(latent).count("<mark") == (values > 0).sum()
        with pytest.raises(UsageError, match="choose 0 to"):
            inspected.tokens_html(10_000)

    def test_tokens_name_the_latent_nearest_to_its_maximum(self, inspected):
        shown = re.findall(r'data-value="latent (\d+): \S+" title="[^,]+, (\d+)% of max"', inspected.tokens_html())
        matrix = inspected.matrix()
        known = inspected.top(None).set_index("latent")
        scale = np.fmax(known["value"], known["value"] / known["share"])
        normal = np.array(inspected.inspection.token_class) == TOKEN_CLASSES["normal"]
        shares = (matrix / scale)[normal]
        shares = shares[shares.max(axis=1) > 0]
        assert [(int(latent), int(share)) for latent, share in shown] == [
            (latent, round(100 * share))
            for latent, share in zip(shares.idxmax(axis=1), shares.max(axis=1), strict=True)
        ]


def test_a_steered_text_stands_beside_the_clean_one(wb, fixture_index):
    steered = wb.steer("Ahoy", fixture_index.SCORED, 5.0, n_tokens=12, seed=3)
    html = steered._repr_html_()
    assert "Clean" in html
    assert "the same seed, 3, for both" in html
    assert f"latent {fixture_index.SCORED} clamped to 5 × q99.9, on every token but the first" in html
    assert f"changed on {sum(steered.steering.altered)} of {len(steered.steering.altered)} tokens" in html


def test_the_workbench_says_what_it_is(wb, fixture_index):
    assert fixture_index.HOOK_POINT in wb._repr_html_()


def test_html_shows_itself_and_is_a_string():
    assert Html("<i>a</i>")._repr_html_() == "<i>a</i>" == Html("<i>a</i>")


def test_whatever_shows_itself_loads_nothing_and_interprets_no_text(wb, inspected, fixture_index, loading):
    features = [wb.feature(latent) for latent in range(wb.workbench.d_sae)]
    shown = [wb, inspected, *features, *(each.examples_html() for each in features)]
    shown += [inspected.tokens_html(), *(inspected.tokens_html(latent) for latent in inspected.top()["latent"])]
    shown += [wb.steer(TEXT, fixture_index.SCORED, 5.0, n_tokens=12)]
    tags = set()
    for each in shown:
        read = loading(each._repr_html_())
        assert read.found == [], type(each)
        tags |= read.tags
    assert tags <= ELEMENTS
    assert "&lt;/style&gt;&lt;script&gt;alert(1)" in shown[-1]._repr_html_()
    assert "&lt;script&gt;window.pwned=1&lt;/script&gt;" in wb.feature(fixture_index.HOSTILE)._repr_html_()


def test_a_figure_with_plotly_inside_asks_for_nothing_else(wb, fixture_index, loading):
    """As docs/api.md says of exporting one; its scripts hold all that they run."""
    page = wb.feature(fixture_index.SCORED).histogram().to_html(full_html=False, include_plotlyjs=True)
    assert set(loading(page).found) == {"script"}


def test_a_missing_index_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="no finished index run"):
        open_workbench(tmp_path)


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ("<script>1</script>", "script"),
        ('<img src="https://x/y.png">', "img src=https://x/y.png"),
        ('<a href="javascript:1">x</a>', "a href=javascript:1"),
        ('<b onclick="1">x</b>', "b onclick=1"),
        ("<style>a{background:url(//x)}</style>", "style: a{background:url(//x)}"),
        ('<div style="background:URL(x)">', "div style=background:URL(x)"),
    ],
)
def test_what_would_load_is_seen(html, found, loading):
    assert loading(html).found == [found]
