"""A report's figures: each is what a recount of the examples gives, and no two runs are ever pooled."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from given_index import given_index, planted, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting_runs import ARMS, VALUES, chance_of, explanations, published, scores

from autointerp.report_queries import PER_VERDICT, QUERIES, query
from autointerp.reporting import Figures, Subject, evidence, figures, spans, subject
from autointerp.statistics import METRICS, calibration, clustered_mean
from autointerp.statistics.metrics import Answers
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.run import find_run, list_runs

LATENTS = tuple(range(3, 15))
UNEXPLAINED = (20, 21)
N_LATENTS = 32
N_EXAMPLES = 12
RUNS = (("detection", 1), ("detection", 2), ("simulation", 3), ("embedding", 4))


@pytest.fixture(scope="module")
def root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reporting") / "runs"
    shutil.copytree(tiny_root / "activations", root / "activations")
    return root


@pytest.fixture(scope="module")
def dense(root: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    dense = planted(tokens_of(find_run(root, "latest", "activations"), tmp_path_factory.mktemp("map")), N_LATENTS)
    dense[:, 0] = 0  # never fires
    return dense


@pytest.fixture(scope="module")
def index(root: Path, dense: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> FeatureIndex:
    """Twelve latents explained by two explainers, the one scored by four runs, the other by one."""
    tokens = tokens_of(find_run(root, "latest", "activations"), tmp_path_factory.mktemp("again"))
    run = given_index(root, dense, tokens, name="layers.1")
    texts = {latent: f"words of {latent}" for latent in LATENTS}
    one = explanations(run, texts, UNEXPLAINED, {4: 0.5, 5: 0.1})
    for scorer, seed in RUNS:
        scores(one, scorer, LATENTS, seed=seed)
    other = explanations(run, {2: "another"}, explainer="top")
    scores(other, "detection", (2,), seed=9)
    return FeatureIndex(published(run).folder)


@pytest.fixture(scope="module")
def of(index: FeatureIndex) -> Subject:
    runs = [run for run in list_runs(index.run.root, "explanations") if run.config["explainer"] == "default"]
    return subject(index, runs[0].id[:10])


@pytest.fixture(scope="module")
def found(index: FeatureIndex, of: Subject) -> Figures:
    return figures(index, of)


@pytest.fixture(scope="module")
def examples(of: Subject) -> list[dict[str, Any]]:
    """Of the runs in question, as they lie on disk."""
    return [
        row
        for run in of.scores
        for path in sorted(run.folder.glob("parts/examples-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def _recounted(examples: Sequence[Mapping[str, Any]], run: str, arm: str, scorer: str) -> dict[int, float | None]:
    """Each latent's score, from its own examples and no others."""
    recounted = {}
    for latent in LATENTS:
        read = [
            row
            for row in examples
            if (row["run"], row["arm"], row["latent"]) == (run, arm, latent) and row["answer"] is not None
        ]
        truth, said = (np.array([row[name] for row in read], float) for name in ("truth", "answer"))
        recounted[latent] = METRICS[VALUES[scorer][0]](Answers(truth, said)) if read else None
    return recounted


def chance_of_scored(scorer: str, values: Mapping[int, float | None]) -> float:
    return float(np.mean([chance_of(scorer, latent) for latent, value in values.items() if value is not None]))


def test_every_mean_and_every_difference_is_what_the_examples_give(
    found: Figures, of: Subject, examples: list[dict[str, Any]]
):
    scorer = {run.id: run.config["scorer"] for run in of.scores}
    values = {(run, arm): _recounted(examples, run, arm, scorer[run]) for run in scorer for arm in ARMS}
    assert {(each.run, each.arm) for each in found.arms} == values.keys()
    for each in found.arms:
        told = [value for value in values[each.run, each.arm].values() if value is not None]
        assert each.mean.value == pytest.approx(np.mean(told))
        assert each.chance == pytest.approx(chance_of_scored(scorer[each.run], values[each.run, each.arm]))
        assert (each.mean.n_rows, each.mean.n_missing) == (len(told), len(LATENTS) - len(told))
    for each in found.above:
        own, null = values[each.run, "explanation"], values[each.run, each.null]
        both = [x - y for x, y in zip(own.values(), null.values(), strict=True) if x is not None and y is not None]
        assert each.of.difference == pytest.approx(np.mean(both))
        assert each.of.n_latents == len(both)
        assert each.of.p_value is not None
        assert each.adjusted is not None
        assert each.adjusted >= each.of.p_value


def test_members_of_a_cluster_are_one_group_in_intervals(root: Path, dense: np.ndarray, tmp_path: Path):
    tokens = tokens_of(find_run(root, "latest", "activations"), tmp_path)
    run = given_index(root, dense, tokens, name="clustered")
    together = {1: 3, 2: 3, 3: 3, 4: 5, 5: 5}
    of = explanations(run, dict.fromkeys(LATENTS, "words"), clusters=[(3, 1, 2), (5, 4)])
    other = explanations(run, dict.fromkeys(LATENTS, "words"), explainer="top", clusters=[LATENTS])
    rows = pq.read_table(
        next(scores(of, "detection", LATENTS, seed=1).folder.glob("parts/scores-*.parquet"))
    ).to_pylist()
    index = FeatureIndex(published(run).folder)
    found, values = figures(index, subject(index, of.id)), {(row["arm"], row["latent"]): row["value"] for row in rows}
    groups = [together.get(latent, latent) for latent in LATENTS]
    assert other.id != of.id
    for each in found.arms:
        expected = clustered_mean([values[each.arm, latent] for latent in LATENTS], groups)
        assert each.mean.interval == pytest.approx(expected.interval)
    for each in found.above:
        pairs = [(values["explanation", latent], values[each.null, latent]) for latent in LATENTS]
        expected = clustered_mean([None if None in pair else pair[0] - pair[1] for pair in pairs], groups)
        assert each.of.interval == pytest.approx(expected.interval)
        assert each.of.n_groups == expected.n_groups < each.of.n_latents


def test_unread_answers_are_those_of_the_examples_and_their_bounds_hold_the_mean(
    found: Figures, examples: list[dict[str, Any]]
):
    for row in found.unread:
        mine = [each for each in examples if (each["run"], each["arm"]) == (row["run"], row["arm"])]
        assert row["n_unread"] == sum(each["answer"] is None for each in mine)
        assert row["n_read"] + row["n_unread"] == len(mine)
        assert row["n_asked_twice"] == sum(each["n_asked"] == 2 for each in mine)
    assert any(row["n_unread"] for row in found.unread)
    detection = [row for row in found.unread if row["scorer"] == "detection"]
    assert all(row["worst"] <= row["best"] for row in detection)


def test_a_calibration_curve_is_that_of_the_examples(found: Figures, of: Subject, examples: list[dict[str, Any]]):
    judged = {run.id for run in of.scores if run.config["scorer"] == "detection"}
    assert found.calibration.keys() == judged
    for run, bins in found.calibration.items():
        mine = [
            row
            for row in examples
            if row["run"] == run and row["arm"] == "explanation" and row["probability"] is not None
        ]
        expected = calibration([row["truth"] for row in mine], [row["probability"] for row in mine])
        for one, other in zip(bins, [each for each in expected if each.n], strict=True):
            assert one.n == other.n
            assert one.low == pytest.approx(other.low)
            for name in ("mean_probability", "share_true", "interval"):
                assert getattr(one, name) == pytest.approx(getattr(other, name))


def test_every_latent_is_counted_once_for_every_scorer(found: Figures, dense: np.ndarray):
    n_dead = int((dense == 0).all(0).sum())
    for row in found.denominators:
        fates = [row[name] for name in ("dead", "not_chosen", "unexplained", "skipped", "unparsed", "scored")]
        assert sum(fates) == row["width"] == N_LATENTS
        assert row["dead"] == n_dead == 1
        assert row["unexplained"] == len(UNEXPLAINED)
        # the last latent's answers could not be read
        assert row["scored"] + row["unparsed"] + row["skipped"] == len(LATENTS)
        assert row["unparsed"] >= 1
        assert not row["skipped"]
    assert [dict(row) for row in found.unexplained] == [{"reason": "no evidence", "n_latents": len(UNEXPLAINED)}]


def test_bins_of_a_histogram_hold_every_score_once(index: FeatureIndex, found: Figures):
    rows = index.arrow("SELECT run, arm, latent, value FROM scores WHERE value IS NOT NULL").to_pylist()
    for run, arm in {(row["run"], row["arm"]) for row in found.histogram}:
        bins = [row for row in found.histogram if (row["run"], row["arm"]) == (run, arm)]
        values = [row["value"] for row in rows if (row["run"], row["arm"]) == (run, arm)]
        assert sum(row["n_latents"] for row in bins) == len(values)
        assert sum(row["share"] for row in bins) == pytest.approx(1)
        of = {each["latent"]: each["value"] for each in rows if (each["run"], each["arm"]) == (run, arm)}
        assert [row["chance"] for row in bins] == pytest.approx([chance_of_scored(bins[0]["scorer"], of)] * len(bins))
        for row in bins:
            inside = [v for v in values if row["low"] - 1e-9 <= v <= row["high"] + 1e-9]
            assert len(inside) >= row["n_latents"]


def test_an_explanation_that_quotes_is_flagged_and_one_that_hardly_does_is_not(found: Figures):
    assert [(row["latent"], row["quoted"], row["n_explained"]) for row in found.leakage] == [(4, 0.5, len(LATENTS))]


class TestD13:
    """Summaries elsewhere had a fixed number of tokens, counted example rows as latents, looked values up as places,
    took layer 10 for layer 1, put all scorers into one figure, and broke on simulation."""

    def test_tokens_are_those_of_the_text(self, index: FeatureIndex, found: Figures):
        tokens = index.tokens
        counted = tokens.positions(np.arange(len(tokens)))[1] > 0
        assert found.overview["n_tokens"] == int(counted.sum())

    def test_latents_are_counted_not_their_examples(self, found: Figures):
        assert found.overview["n_explained"] == len(LATENTS)
        assert found.overview["n_scored"] <= len(LATENTS)
        assert found.overview["n_examples"] == len(RUNS) * len(ARMS) * len(LATENTS) * N_EXAMPLES

    def test_densities_are_counts_of_firings(self, index: FeatureIndex, found: Figures, dense: np.ndarray):
        tokens = index.tokens
        counted = tokens.positions(np.arange(len(tokens)))[1] > 0
        for each in found.density.values():
            expected = (dense[counted][:, each.latents] != 0).mean(0)
            assert each.density == pytest.approx(expected.tolist())

    def test_layer_1_has_nothing_of_layer_10_nor_of_another_explainer(
        self, root: Path, dense: np.ndarray, index: FeatureIndex, of: Subject, found: Figures, tmp_path: Path
    ):
        tokens = tokens_of(find_run(root, "latest", "activations"), tmp_path)
        ten = given_index(root, dense, tokens, name="layers.10")
        scores(explanations(ten, {2: "of layer ten"}), "detection", (2,), seed=77)
        other = FeatureIndex(published(ten).folder)
        published(index.run)
        assert subject(other).explanations.inputs["index"] == ten.id
        assert figures(other, subject(other)).overview["n_explained"] == 1
        assert {run.id for run in subject(index, of.explanations.id).scores} == {run.id for run in of.scores}
        assert figures(index, of) == found
        with pytest.raises(UsageError, match="no explanations"):
            subject(index, subject(other).explanations.id)

    def test_runs_of_one_scorer_are_told_apart(self, of: Subject, found: Figures):
        names = sorted(of.labels.values())
        assert len(set(names)) == len(RUNS)
        assert [name.split()[0] for name in names] == sorted(scorer for scorer, _ in RUNS)
        f1 = {row["run"]: row for row in found.metrics if row["metric"] == "f1"}
        assert {row["scorer"] for row in f1.values()} >= {"detection"}
        assert len({row["mean"] for row in f1.values() if row["scorer"] == "detection"}) == 2

    def test_simulation_is_in_it(self, index: FeatureIndex, of: Subject, found: Figures):
        run = next(run.id for run in of.scores if run.config["scorer"] == "simulation")
        assert {each.arm for each in found.arms if each.run == run} == set(ARMS)
        assert run in found.density
        shown = evidence(index, of, LATENTS[:1])[0].examples
        assert any(each.run == run for each in shown)


def test_scorers_agree_over_the_latents_that_both_have_scored(found: Figures):
    assert len(found.agreement) == len(RUNS) * (len(RUNS) - 1) // 2
    for (one, other), each in found.agreement.items():
        assert each.n == len(set(found.density[one].latents) & set(found.density[other].latents))


def test_examples_are_judged_right_and_wrong_as_a_person_would(
    index: FeatureIndex, of: Subject, examples: list[dict[str, Any]]
):
    run = next(run.id for run in of.scores if run.config["scorer"] == "detection")
    for latent, one in zip(LATENTS, evidence(index, of, LATENTS), strict=True):
        mine = [row for row in examples if (row["run"], row["arm"], row["latent"]) == (run, "explanation", latent)]
        verdicts = [
            "not read" if row["answer"] is None else "right" if row["answer"] == row["truth"] else "wrong"
            for row in mine
        ]
        shown = [each for each in one.examples if each.run == run]
        for verdict in ("right", "wrong", "not read"):
            of_it = [each for each in shown if each.verdict == verdict]
            assert len(of_it) == min(PER_VERDICT, verdicts.count(verdict))
            assert all(each.n == verdicts.count(verdict) for each in of_it)


def test_a_graded_answer_is_right_on_the_right_side_of_the_others(
    index: FeatureIndex, of: Subject, examples: list[dict[str, Any]]
):
    run = next(run.id for run in of.scores if run.config["scorer"] == "embedding")
    mine = [row for row in examples if (row["run"], row["arm"], row["latent"]) == (run, "explanation", LATENTS[0])]
    read = {row["number"]: row for row in mine if row["answer"] is not None}
    for each in evidence(index, of, LATENTS[:1])[0].examples:
        if each.run == run and each.verdict != "not read":
            row = read[each.row["number"]]
            others = [other["answer"] for other in read.values() if other["truth"] != row["truth"]]
            share = np.mean([(row["answer"] > other) == (row["truth"] == 1) for other in others])
            assert each.verdict == ("right" if share >= 0.5 else "wrong")


def test_what_there_is_none_of_says_so_in_one_line(index: FeatureIndex, of: Subject, root: Path, dense: np.ndarray):
    with pytest.raises(UsageError, match="latent 31 has no explanation"):
        evidence(index, of, (31,))
    with pytest.raises(UsageError, match="no explanations 'zz'"):
        subject(index, "zz")
    with pytest.raises(ValueError, match="no id of a run"):
        query("means", "x'; DROP", [])


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_is_one_select_that_stands_alone(name: str, index: FeatureIndex, of: Subject):
    rows = index.sql(of.query(name, LATENTS[:2]))
    assert len(rows.columns) > 1


@settings(max_examples=100, deadline=None)
@given(
    document=st.text("ab c", max_size=40),
    at=st.integers(0, 40),
    size=st.integers(0, 20),
    fires=st.lists(st.integers(0, 39), max_size=6, unique=True),
    active=st.booleans(),
)
def test_a_marked_context_reads_as_it_was_judged(document: str, at: int, size: int, fires: list[int], active: bool):
    text = document[at : at + size]
    row = {"document": document, "starts": fires, "stops": [i + 1 for i in fires], "activations": [1.0] * len(fires)}
    pieces = spans(text, row, active=active)
    assert "".join(piece.text for piece in pieces) == text
    n_marked = sum(len(piece.text) for piece in pieces if piece.activation is not None)
    places = [i for i in range(len(document) - len(text) + 1) if document.startswith(text, i)]
    counts = {sum(i <= fire < i + len(text) for fire in fires) for i in places}
    assert n_marked in {0, *counts}
    if len(places) == 1:
        assert n_marked == counts.pop()
