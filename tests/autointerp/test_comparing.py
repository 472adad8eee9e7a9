"""A comparison of two runs of scores is that of their rows, latent by latent, and of nothing that cannot be paired."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from given_index import given_index, planted, tokens_of
from reporting_runs import explanations, scores
from scipy.stats import ttest_rel

from autointerp.comparing import compare_scores
from autointerp.statistics import clustered_mean
from autointerp.summary import summary
from store.errors import UsageError
from store.index import parts_of
from store.matching import Matching
from store.run import Run, find_run

LATENTS = tuple(range(12))
N_LATENTS = 16


@pytest.fixture(scope="module")
def root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("comparing") / "runs"
    shutil.copytree(tiny_root / "activations", root / "activations")
    return root


@pytest.fixture(scope="module")
def index(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _index(root, tmp_path_factory, "one")


def _index(root: Path, factory: pytest.TempPathFactory, name: str) -> Run:
    tokens = tokens_of(find_run(root, "latest", "activations"), factory.mktemp(name))
    return given_index(root, planted(tokens, N_LATENTS), tokens, name=name)


def scored(
    index: Run, explainer: str, latents: tuple[int, ...] = LATENTS, *, scorer: str = "detection", clusters=()
) -> Run:
    of = explanations(index, dict.fromkeys(latents, "words"), explainer=explainer, clusters=clusters)
    return scores(of, scorer, latents, seed=len(explainer))


def values(run: Run, arm: str = "explanation") -> dict[int, float]:
    rows = parts_of(run.folder, "scores").to_pylist()
    return {row["latent"]: row["value"] for row in rows if row["arm"] == arm and row["value"] is not None}


def test_it_is_the_paired_test_of_the_latents_that_both_scored(index: Run):
    a, b = scored(index, "default"), scored(index, "top", LATENTS[2:])
    found = compare_scores(a, b)
    row, of_a, of_b = found.rows[0], values(a), values(b)
    both = sorted(of_a.keys() & of_b.keys())
    expected = ttest_rel([of_a[latent] for latent in both], [of_b[latent] for latent in both])
    ends = expected.confidence_interval()  # type: ignore[attr-defined]
    assert (row.what, row.found.n_latents, row.found.n_unpaired) == ("score", len(both), 2)
    assert row.found.interval == pytest.approx((ends.low, ends.high))
    assert row.a == pytest.approx(np.mean([of_a[latent] for latent in both]))
    assert row.b == pytest.approx(np.mean([of_b[latent] for latent in both]))
    assert row.found.p_value is not None
    assert row.adjusted_p is not None
    assert row.adjusted_p >= row.found.p_value


@pytest.mark.parametrize("clustered", [("a",), ("b",), ("a", "b")])
def test_latents_that_either_run_explained_together_are_one_group(clustered: tuple[str, ...], index: Run):
    clusters = {"a": [(3, 1, 2), (5, 4)], "b": [(2, 6), (8, 9)]}
    a, b = (
        scored(index, f"default {side}", clusters=clusters[side] if side in clustered else ()) for side in ("a", "b")
    )
    together = {
        ("a",): {1: 1, 2: 1, 3: 1, 4: 4, 5: 4},
        ("b",): {2: 2, 6: 2, 8: 8, 9: 8},
        ("a", "b"): {1: 1, 2: 1, 3: 1, 6: 1, 4: 4, 5: 4, 8: 8, 9: 8},
    }[clustered]
    of_a, of_b = values(a), values(b)
    both = sorted(of_a.keys() & of_b.keys())
    expected = clustered_mean([of_a[i] - of_b[i] for i in both], [together.get(i, i) for i in both])
    row = compare_scores(a, b).rows[0]
    assert row.found.interval == pytest.approx(expected.interval)
    assert (row.found.n_latents, row.found.n_groups) == (len(both), expected.n_groups)


def test_results_count_latents_that_were_explained_together_as_one_group(index: Run):
    groups = {1: 3, 2: 3, 3: 3, 4: 5, 5: 5}
    run = scored(index, "default", clusters=[(3, 1, 2), (5, 4)])
    own, null = values(run), values(run, "generic")
    results = summary(run.folder, find_run(index.root, run.inputs["explanations"], "explanations"))
    expected = clustered_mean(list(own.values()), [groups.get(i, i) for i in own])
    assert results["explanation"]["interval"] == pytest.approx(expected.interval)
    assert results["explanation"]["n_scored"] == len(own)
    both = [i for i in own if i in null]
    expected = clustered_mean([own[i] - null[i] for i in both], [groups.get(i, i) for i in both])
    assert results["above"]["generic"]["interval"] == pytest.approx(expected.interval)


def test_a_latent_whose_answers_could_not_be_read_is_not_taken_for_one_that_was_skipped(index: Run):
    run = scored(index, "default")
    rows = [row for row in parts_of(run.folder, "scores").to_pylist() if row["arm"] == "explanation"]
    n_unread = sum(row["value"] is None and row["n_unparsed"] > 0 for row in rows)
    n_scored = sum(row["value"] is not None for row in rows)
    assert n_unread
    told = summary(run.folder, find_run(index.root, run.inputs["explanations"], "explanations"))["denominators"]
    assert (told["skipped"], told["unparsed"], told["scored"]) == (len(rows) - n_unread - n_scored, n_unread, n_scored)


def test_above_a_null_is_the_difference_of_differences(index: Run):
    a, b = scored(index, "default"), scored(index, "contrastive")
    row = {each.what: each for each in compare_scores(a, b).rows}["above generic"]
    own, null = zip(*((values(run), values(run, "generic")) for run in (a, b)), strict=True)
    both = set.intersection(*(set(each) for each in (*own, *null)))
    expected = np.mean([own[0][i] - null[0][i] - (own[1][i] - null[1][i]) for i in both])
    assert row.found.difference == pytest.approx(expected)


def test_it_names_what_differs(index: Run):
    found = compare_scores(scored(index, "default"), scored(index, "top"))
    assert found.differs["explanations.explainer"] == ("default", "top")
    assert "index" not in found.differs


def test_what_cannot_be_paired_is_refused(index: Run, root: Path, tmp_path_factory: pytest.TempPathFactory):
    a = scored(index, "default")
    other = _index(root, tmp_path_factory, "another")
    for b, message in (
        (a, "named twice"),
        (scored(index, "top", scorer="simulation"), "of the scorer detection"),
        (scored(index, "single_token", (14, 15)), "no latent has a score in both"),
        (scored(other, "default"), "monosem match"),
    ):
        with pytest.raises(UsageError, match=message):
            compare_scores(a, b)


def test_a_matching_pairs_the_latents_of_two_dictionaries(matched_root: Path, tmp_path: Path):
    shutil.copytree(matched_root, tmp_path / "runs")
    matching = Matching(find_run(tmp_path / "runs", "latest", "matching").folder)
    pairs = matching.sql("SELECT a, b FROM one_to_one WHERE measure = 'correlation' AND matched")
    root = matching.run.root
    of_a, of_b = (find_run(root, matching.run.inputs[side], "index") for side in ("a", "b"))
    a = scored(of_a, "default", tuple(pairs["a"].tolist()))
    b = scored(of_b, "default", tuple(pairs["b"].tolist()))
    row = compare_scores(a, b, matching).rows[0]
    own = [(values(a)[x], values(b)[y]) for x, y in pairs.itertuples(index=False) if x in values(a) and y in values(b)]
    assert row.found.n_latents == len(own) > 1
    assert row.found.difference == pytest.approx(np.mean(np.subtract(*np.transpose(own))))
    swapped = compare_scores(b, a, matching).rows[0]
    assert (swapped.a, swapped.b) == pytest.approx((row.b, row.a))
    with pytest.raises(UsageError, match="is of the indexes"):
        compare_scores(a, scored(of_a, "top"), matching)
