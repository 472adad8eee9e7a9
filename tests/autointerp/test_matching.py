"""Two dictionaries side by side, against brute force on dense matrices, planted families and permuted copies."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from activations.reader import Activations
from app.cli import main
from autointerp.matching.config import MatchConfig
from autointerp.matching.job import match_indexes
from sae import checkpoint
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.matching import Matching
from store.run import find_run
from store.shards import as_torch
from store.token_map import TokenMap


@pytest.fixture(scope="module")
def sides(matched_root: Path, matching: Matching) -> list:
    """Each side's dictionary."""
    indexes = [find_run(matched_root, matching.run.inputs[side], "index") for side in "ab"]
    return [checkpoint.load(find_run(matched_root, run.inputs["sae"], "sae").folder) for run in indexes]


@pytest.fixture(scope="module")
def dense(matched_root: Path, sides: list) -> list[np.ndarray]:
    """Each side's latents on every token that counts."""
    activations = Activations(find_run(matched_root, "latest", "activations"))
    rows: list[list[np.ndarray]] = [[], []]
    for block in activations.blocks:
        opened = block.open()
        counted = (opened.columns["token_class"] == 0) & (opened.columns["pos"] > 0)
        x = as_torch(opened.vectors, activations.dtype).float()[torch.from_numpy(counted)]
        for sae, found in zip(sides, rows, strict=True):
            with torch.no_grad():
                found.append(sae.encode(x).dense().double().numpy())
    return [np.concatenate(found) for found in rows]


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Straight from the definition; NaN where a side does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = a - a.mean(0), b - b.mean(0)
        return a.T @ b / np.sqrt(np.outer((a**2).sum(0), (b**2).sum(0)))


def judged(a: np.ndarray, b: np.ndarray, least: int = 10) -> np.ndarray:
    return np.outer((a != 0).sum(0) >= least, (b != 0).sum(0) >= least)


@pytest.fixture(scope="module")
def truth(dense: list[np.ndarray], sides: list) -> dict[str, np.ndarray]:
    """Every measure of every pair, by brute force; NaN where it is not judged."""
    a, b = dense
    on_a, on_b = (a != 0).astype(float), (b != 0).astype(float)
    both, n_a, n_b = on_a.T @ on_b, on_a.sum(0), on_b.sum(0)
    cosines = {}
    for side, rows in (("decoder", lambda sae: sae.W_dec), ("encoder", lambda sae: sae.W_enc.t())):
        unit = [torch.nn.functional.normalize(rows(sae).detach().double(), dim=1).numpy() for sae in sides]
        cosines[side] = np.where(np.outer(n_a > 0, n_b > 0), unit[0] @ unit[1].T, np.nan)
    enough = judged(a, b)
    with np.errstate(invalid="ignore"):
        jaccard = both / (n_a[:, None] + n_b - both)
    return cosines | {
        "correlation": np.where(enough, correlations(a, b), np.nan),
        "phi": np.where(enough & (both > 0), correlations(on_a, on_b), np.nan),
        "jaccard": np.where(enough & (both > 0), jaccard, np.nan),
    }


class TestAgainstBruteForce:
    @pytest.mark.parametrize("measure", ["decoder", "encoder", "correlation", "phi", "jaccard"])
    def test_best_partners_are_the_largest_values(self, matching: Matching, truth: dict, measure: str):
        for side, values in (("a", truth[measure]), ("b", truth[measure].T)):
            rows = matching.sql("FROM best WHERE side = ? AND measure = ? ORDER BY latent", [side, measure])
            has_any = np.flatnonzero(~np.isnan(values).all(1))
            assert rows["latent"].tolist() == has_any.tolist()
            assert np.allclose(rows["value"], np.nanmax(values[has_any], axis=1), atol=1e-5)
            assert np.allclose(values[rows["latent"], rows["other"]], rows["value"], atol=1e-5)

    def test_figures_of_pairs_are_those_of_the_dense_matrices(self, matching: Matching, dense: list, truth: dict):
        pairs = matching.sql("FROM pairs")
        at = (pairs["a"].to_numpy(), pairs["b"].to_numpy())
        assert len(pairs) > 100
        assert not pairs.duplicated(["a", "b"]).any()
        on_a, on_b = dense[0] != 0, dense[1] != 0
        both = (on_a[:, at[0]] & on_b[:, at[1]]).sum(0)
        assert np.array_equal(pairs["n_both"], both)
        assert np.allclose(pairs["a_implies_b"], both / on_a.sum(0)[at[0]])
        assert np.allclose(pairs["b_implies_a"], both / on_b.sum(0)[at[1]])
        for measure, exact in (("decoder", truth["decoder"]), ("correlation", correlations(*dense))):
            assert np.allclose(pairs[measure], exact[at], atol=1e-5, equal_nan=True)

    @pytest.mark.parametrize("measure", ["decoder", "encoder", "correlation"])
    def test_one_to_one_pairs_have_the_largest_sum(self, matching: Matching, truth: dict, measure: str):
        values = truth[measure]
        values = values[np.ix_(~np.isnan(values).all(1), ~np.isnan(values).all(0))]
        rows, columns = linear_sum_assignment(values, maximize=True)
        pairs = matching.sql("FROM one_to_one WHERE measure = ?", [measure])
        assert len(pairs) == len(rows) == pairs["a"].nunique() == pairs["b"].nunique()
        assert pairs["value"].sum() == pytest.approx(values[rows, columns].sum(), rel=1e-5)

    def test_the_null_of_correlation_is_that_of_rotated_sequences(
        self, matched_root: Path, matching: Matching, tokens: TokenMap
    ):
        dense = {}
        for side in "ab":
            index = FeatureIndex(find_run(matched_root, matching.run.inputs[side], "index").folder)
            dense[side] = np.zeros((len(tokens), index.n_latents))
            table = index.sql("SELECT latent, seq, pos, value FROM events")
            dense[side][tokens.places(table["seq"].to_numpy(), table["pos"].to_numpy()), table["latent"]] = table[
                "value"
            ]
        n = len(tokens.seqs)
        by = int(np.random.default_rng(0).integers(n // 4, n - n // 4))
        shift = int(tokens.offsets[by])
        first = tokens.positions(np.arange(len(tokens)))[1] == 0
        sink = np.ones(len(tokens), bool)
        sink[np.flatnonzero((dense["a"] != 0).any(1))] = False
        counts = ~sink & ~first
        on = counts & np.roll(counts, shift)
        a, b = np.roll(dense["a"], shift, axis=0)[on], dense["b"][on]
        null = np.where(judged(a, b), correlations(a, b), np.nan)
        best = [np.nanmax(values[~np.isnan(values).all(1)], axis=1) for values in (null, null.T)]
        threshold = matching.sql("SELECT threshold FROM thresholds WHERE measure = 'correlation'")["threshold"][0]
        assert threshold == pytest.approx(np.quantile(np.concatenate(best), 0.99), rel=1e-5)


class TestWhatIsTold:
    def test_matched_says_that_a_pair_is_above_the_threshold(self, matching: Matching):
        wrong = """FROM one_to_one o JOIN thresholds t USING (measure) WHERE o.matched <> (o.value > t.threshold)"""
        assert matching.sql(wrong).empty
        paired = "SELECT a FROM one_to_one WHERE measure = 'decoder' AND matched ORDER BY a"
        told = "SELECT latent FROM latents WHERE side = 'a' AND by_decoder ORDER BY latent"
        assert matching.sql(paired)["a"].tolist() == matching.sql(told)["latent"].tolist()

    def test_a_latent_alone_has_no_partner_above_the_thresholds(self, matching: Matching):
        near = """SELECT DISTINCT side, latent FROM best JOIN thresholds USING (measure)
                  WHERE value > threshold AND measure <> 'encoder'"""
        rows = matching.sql(f"SELECT alone, n.latent IS NOT NULL AS near FROM latents LEFT JOIN ({near}) n "
                            "USING (side, latent) WHERE alone IS NOT NULL")  # fmt: skip
        assert (rows["alone"] != rows["near"]).all()

    def test_both_indexes_can_be_asked_beside_it(self, matching: Matching):
        query = "SELECT l.n_fired, f.n_fired AS told FROM latents l JOIN b.features f USING (latent) WHERE side = 'b'"
        rows = matching.sql(query)
        assert len(rows) == 96
        assert (rows["n_fired"] == rows["told"]).all()

    def test_nothing_can_be_written_or_read_elsewhere(self, matching: Matching, tmp_path: Path):
        for query in (f"COPY latents TO '{tmp_path}/x.csv'", "DROP VIEW latents", "SELECT 1; SELECT 2"):
            with pytest.raises(UsageError, match="one SELECT"):
                matching.sql(query)
        with pytest.raises(UsageError, match="cannot be answered"):
            matching.sql("FROM read_csv('/etc/passwd')")

    def test_a_missing_table_is_named(self, matching: Matching, tmp_path: Path):
        folder = tmp_path / "runs" / "matching" / matching.folder.name
        shutil.copytree(matching.folder, folder)
        (folder / "parts" / "pairs.parquet").unlink()
        with pytest.raises(UsageError, match=r"pairs\.parquet is damaged or missing: delete .* `monosem match` again"):
            Matching(folder)

    def test_the_command_line_shows_and_queries_it(self, matched_root: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["show", "--root", str(matched_root)]) == 0
        assert "pairs above chance by decoder" in capsys.readouterr().out
        query = "SELECT count(*) AS n FROM latents"
        assert main(["sql", query, "--over", "matching", "--format", "json", "--root", str(matched_root)]) == 0
        assert capsys.readouterr().out == '{"n":160}\n'

    def test_the_same_request_is_the_same_run(self, matched_root: Path, matching: Matching):
        a, b = (find_run(matched_root, matching.run.inputs[side], "index") for side in "ab")
        again = match_indexes(MatchConfig(), a, b, matched_root)
        assert (again.id, again.reused) == (matching.run.id, True)
        assert not (again.folder / ".scratch").exists()
