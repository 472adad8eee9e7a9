"""Two dictionaries side by side, against brute force on dense matrices, planted families and permuted copies."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from given_index import given_index, tokens_of
from scipy.optimize import linear_sum_assignment

from activations.reader import Activations
from app.cli import main
from autointerp.index.config import IndexConfig
from autointerp.matching.config import MatchConfig
from autointerp.matching.job import match_indexes
from sae import checkpoint
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.matching import Matching
from store.run import Run, find_run, list_runs, start_run
from store.shards import as_torch
from store.token_map import TokenMap


@pytest.fixture(scope="module")
def root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny runs, a wider dictionary of another seed, its index, and the matching of both."""
    root = tmp_path_factory.mktemp("matching") / "runs"
    shutil.copytree(tiny_root, root)
    for command in (
        "train topk --d-sae 96 --k 4 --n-steps 40 --batch-size 256 --seed 1",
        "index",
        "match",
    ):
        assert main([*command.split(), "--root", str(root)]) == 0
    return root


@pytest.fixture(scope="module")
def matching(root: Path) -> Matching:
    return Matching(find_run(root, "latest", "matching").folder)


@pytest.fixture(scope="module")
def tokens(root: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenMap:
    return tokens_of(find_run(root, "latest", "activations"), tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def sides(root: Path, matching: Matching) -> list:
    """Each side's dictionary."""
    indexes = [find_run(root, matching.run.inputs[side], "index") for side in "ab"]
    return [checkpoint.load(find_run(root, run.inputs["sae"], "sae").folder) for run in indexes]


@pytest.fixture(scope="module")
def dense(root: Path, sides: list) -> list[np.ndarray]:
    """Each side's latents on every token that counts."""
    activations = Activations(find_run(root, "latest", "activations"))
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
        self, root: Path, matching: Matching, tokens: TokenMap
    ):
        dense = {}
        for side in "ab":
            index = FeatureIndex(find_run(root, matching.run.inputs[side], "index").folder)
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

    def test_the_command_line_shows_and_queries_it(self, root: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["show", "--root", str(root)]) == 0
        assert "pairs above chance by decoder" in capsys.readouterr().out
        query = "SELECT count(*) AS n FROM latents"
        assert main(["sql", query, "--over", "matching", "--format", "json", "--root", str(root)]) == 0
        assert capsys.readouterr().out == '{"n":160}\n'

    def test_the_same_request_is_the_same_run(self, root: Path, matching: Matching):
        a, b = (find_run(root, matching.run.inputs[side], "index") for side in "ab")
        again = match_indexes(MatchConfig(), a, b, root)
        assert (again.id, again.reused) == (matching.run.id, True)
        assert not (again.folder / ".scratch").exists()


@pytest.fixture
def work(root: Path, tmp_path: Path) -> Path:
    """A folder with the harvest and nothing else."""
    harvest = find_run(root, "latest", "activations")
    shutil.copytree(harvest.folder, tmp_path / "runs" / "activations" / harvest.id)
    return tmp_path / "runs"


def planted(tokens: TokenMap, d: int, density: float = 0.03, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.exponential(size=(len(tokens), d)) * (random.random((len(tokens), d)) < density)


class TestGiven:
    """Indexes that were told what fires where: no dictionary, so no cosine."""

    def test_a_permuted_copy_is_recovered(self, work: Path, tokens: TokenMap):
        dense = planted(tokens, 24)
        order = np.random.default_rng(1).permutation(24)
        a, b = given_index(work, dense, tokens, name="a"), given_index(work, dense[:, order] * 3, tokens, name="b")
        run = match_indexes(MatchConfig(), a, b, work)
        matching = Matching(run.folder)
        assert "without a dictionary" in run.results["no_cosine"]
        assert list(run.results["measures"]) == ["correlation"]
        pairs = matching.sql("FROM one_to_one ORDER BY b")
        assert pairs["a"].tolist() == order.tolist()
        assert np.allclose(pairs["value"], 1)
        assert pairs["matched"].all()
        best = matching.sql("FROM best")
        assert best["mutual"].all()
        assert np.allclose(best["value"], 1)
        assert matching.sql("SELECT count(decoder) AS n FROM pairs")["n"][0] == 0
        assert run.results["null_n_families"] is None

    def test_sides_exchanged_give_the_same_measures(self, work: Path, tokens: TokenMap):
        one = planted(tokens, 12, 0.1)
        two = np.concatenate([one[:, :6] * (one[:, :6] > 0.5), planted(tokens, 8, 0.1, seed=2)], axis=1)
        a, b = given_index(work, one, tokens, name="a"), given_index(work, two, tokens, name="b")
        forth, back = (Matching(match_indexes(MatchConfig(), *pair, work).folder) for pair in ((a, b), (b, a)))
        for measure in ("correlation", "phi", "jaccard"):
            query = "SELECT latent, other, value FROM best WHERE side = ? AND measure = ? ORDER BY latent"
            for side, other in ("ab", "ba"):
                here, there = forth.sql(query, [side, measure]), back.sql(query, [other, measure])
                assert np.array_equal(here[["latent", "other"]], there[["latent", "other"]])
                assert np.allclose(here["value"], there["value"])
        for name, turned in (("a", "b"), ("b", "a")):
            query = "SELECT parent, n_children, coverage, overlap FROM families WHERE side = ? ORDER BY parent"
            assert forth.sql(query, [name]).equals(back.sql(query, [turned]))

    def test_a_split_family_is_found_with_its_coverage_and_overlap(self, work: Path, tokens: TokenMap):
        wide = planted(tokens, 6, 0.06)
        kind = np.random.default_rng(3).integers(0, 4, len(tokens))
        split = [wide[:, 0] * np.isin(kind, kinds) for kinds in ((0,), (1,), (1, 2))]
        b = np.stack([*split, *planted(tokens, 5, seed=4).T], axis=1)
        runs = given_index(work, wide, tokens, name="a"), given_index(work, b, tokens, name="b")
        matching = Matching(match_indexes(MatchConfig(), *runs, work).folder)
        (family,) = matching.sql("FROM families").to_dict("records")
        counted = tokens.positions(np.arange(len(tokens)))[1] > 0
        fires = (wide[:, 0] > 0) & counted
        assert (family["side"], family["parent"], family["n_children"]) == ("a", 0, 3)
        assert family["n_fired"] == fires.sum()
        assert family["coverage"] == pytest.approx((kind[fires] < 3).mean())
        assert family["largest"] == pytest.approx(np.isin(kind[fires], (1, 2)).mean())
        assert family["overlap"] == pytest.approx((kind[fires] == 1).sum() / (kind[fires] < 3).sum())
        children = matching.sql("FROM children ORDER BY latent")
        assert children["latent"].tolist() == [0, 1, 2]
        assert (children["role"] == "child").all()
        assert np.allclose(children["implies"], 1)
        assert np.allclose(children["parent_silent"], 0)
        assert children["decoder"].isna().all()

    def test_firings_of_sampled_latents_are_exact_and_their_correlation_missing(self, work: Path, tokens: TokenMap):
        dense = planted(tokens, 5)
        dense[:, 2] = planted(tokens, 1, 0.5, seed=7)[:, 0]
        kept = IndexConfig(half_window=4, max_events=900, n_top=2)
        a = given_index(work, dense, tokens, kept, name="a")
        b = given_index(work, dense, tokens, IndexConfig(half_window=4), name="b")
        run = match_indexes(MatchConfig(), a, b, work)
        assert run.results["n_sampled"] == {"a": 1, "b": 0}
        pairs = Matching(run.folder).sql("FROM pairs WHERE a = 2 AND b = 2").to_dict("records")
        counted = tokens.positions(np.arange(len(tokens)))[1] > 0
        assert pairs[0]["n_both"] == ((dense[:, 2] > 0) & counted).sum()
        assert pairs[0]["jaccard"] == 1
        assert np.isnan(pairs[0]["correlation"])
        best = Matching(run.folder).sql("FROM best WHERE measure = 'correlation' AND side = 'a'")
        assert sorted(best["latent"]) == [0, 1, 3, 4]

    def test_dead_and_rare_latents_are_told_apart_and_not_judged(self, work: Path, tokens: TokenMap):
        dense = planted(tokens, 5)
        dense[:, 1] = 0
        dense[np.flatnonzero(dense[:, 2])[4:], 2] = 0
        runs = (given_index(work, dense, tokens, name=name) for name in "ab")
        matching = Matching(match_indexes(MatchConfig(), *runs, work).folder)
        rows = matching.sql("FROM latents WHERE side = 'a' ORDER BY latent")
        assert rows["dead"].tolist() == [False, True, False, False, False]
        assert rows["rare"].tolist() == [False, True, True, False, False]
        assert rows["matched"].isna().tolist() == rows["rare"].tolist()
        assert rows["by_decoder"].isna().all()

    def test_large_dictionaries_are_paired_by_being_each_others_nearest(self, work: Path, tokens: TokenMap):
        one, two = planted(tokens, 12, 0.2), planted(tokens, 15, 0.2, seed=5)
        two[:, :4] += one[:, :4]
        runs = given_index(work, one, tokens, name="a"), given_index(work, two, tokens, name="b")
        run = match_indexes(MatchConfig(max_paired=10), *runs, work)
        assert run.results["paired"] == "mutually nearest: more than 10 latents"
        matching = Matching(run.folder)
        mutual = matching.sql("FROM best WHERE mutual AND side = 'a' AND measure = 'correlation' ORDER BY latent")
        pairs = matching.sql("FROM one_to_one ORDER BY a")
        assert pairs["a"].tolist() == mutual["latent"].tolist()
        assert pairs["b"].tolist() == mutual["other"].tolist()


def with_dictionary(work: Path, rows: torch.Tensor, dense: np.ndarray, tokens: TokenMap, name: str) -> Run:
    """An index whose dictionary has these decoder rows and encoder columns."""
    from sae.topk import TopK, TopKConfig

    harvest = find_run(work, "latest", "activations")
    config = {"hook_point": "blocks.1.hook_resid_post", "variant": "topk", "name": name}
    with start_run(work, "sae", config, {"activations": harvest.id}) as run:
        sae = TopK(TopKConfig(d_in=rows.shape[1], d_sae=len(rows), k=2))
        with torch.no_grad():
            sae.W_dec.copy_(rows)
            sae.W_enc.copy_(rows.t())
        checkpoint.save(run.folder, sae)
        run.finish({"d_sae": len(rows)})
    return given_index(work, dense, tokens, name=name, sae=run.id)


class TestDirections:
    def test_a_permuted_dictionary_is_recovered_by_every_measure(self, work: Path, tokens: TokenMap):
        rows = torch.nn.functional.normalize(torch.randn(20, 32), dim=1)
        dense, order = planted(tokens, 20), np.random.default_rng(1).permutation(20)
        a = with_dictionary(work, rows, dense, tokens, "a")
        b = with_dictionary(work, rows[order], dense[:, order], tokens, "b")
        run = match_indexes(MatchConfig(), a, b, work)
        pairs = Matching(run.folder).sql("FROM one_to_one ORDER BY measure, b")
        for measure in ("decoder", "encoder", "correlation"):
            own = pairs[pairs["measure"] == measure]
            assert own["a"].tolist() == order.tolist()
            assert np.allclose(own["value"], 1, atol=1e-6)
            assert own["matched"].all()
            assert (own["chance"] < 0.9).all()
        assert run.results["share_in_both"] == 1
        assert "no_cosine" not in run.results

    def test_a_child_of_the_parents_direction_that_fires_without_it_absorbs(self, work: Path, tokens: TokenMap):
        random = torch.nn.functional.normalize(torch.randn(8, 32), dim=1)
        wide = planted(tokens, 4, 0.05)
        kind = np.random.default_rng(3).integers(0, 2, len(tokens))
        absorbed = planted(tokens, 1, 0.03, seed=9)[:, 0] * (wide[:, 0] == 0)
        absorbed[np.flatnonzero(wide[:, 0])[:40]] = 1
        b = np.stack([wide[:, 0] * (kind == 0), wide[:, 0] * (kind == 1), absorbed, *planted(tokens, 2, seed=6).T], 1)
        near = random[0] + 0.1 * random[4:7]
        first = with_dictionary(work, random[:4], wide, tokens, "a")
        other = with_dictionary(work, torch.cat([near, random[1:2] * -1, random[7:]]), b, tokens, "b")
        run = match_indexes(MatchConfig(), first, other, work)
        children = Matching(run.folder).sql("FROM children WHERE side = 'a' ORDER BY latent")
        assert children["latent"].tolist() == [0, 1, 2]
        assert children["role"].tolist() == ["child", "child", "absorbs"]
        assert children["parent_silent"][2] == pytest.approx(1 - 40 / (absorbed > 0).sum(), abs=0.01)
        assert (children["decoder"] > 0.9).all()
        assert run.results["null_n_families"] == {"a": 0, "b": 0}

    def test_other_sites_have_cosines_only_in_the_residual_basis(self, root: Path, matching: Matching):
        from autointerp.matching.directions import why_no_cosine

        a, b = (find_run(root, matching.run.inputs[side], "index") for side in "ab")
        assert why_no_cosine(a, b) == ""
        sae = find_run(root, b.inputs["sae"], "sae")
        for hook, refused in (("blocks.0.hook_resid_post", False), ("blocks.0.mlp.hook_post", True)):
            config = {**sae.config, "hook_point": hook}
            with start_run(root, "sae", config, sae.inputs) as other:
                other.finish({})
            moved = Run(b.folder, {**b.manifest, "inputs": {**b.inputs, "sae": other.id}})
            assert bool(why_no_cosine(a, moved)) == refused
            shutil.rmtree(other.folder)


class TestRefusals:
    def test_an_index_with_itself(self, root: Path, matching: Matching):
        a = find_run(root, matching.run.inputs["a"], "index")
        with pytest.raises(UsageError, match="which matches itself: name another"):
            match_indexes(MatchConfig(), a, a, root)

    def test_other_tokens(self, work: Path, tokens: TokenMap, tmp_path: Path):
        a = given_index(work, planted(tokens, 4), tokens, name="a")
        command = (
            "harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories --n-tokens 2000 --n-ctx 64"
        )
        assert main([*command.split(), "--root", str(work)]) == 0
        fewer = tokens_of(find_run(work, "latest", "activations"), tmp_path / "fewer")
        b = given_index(work, planted(fewer, 4, 0.2), fewer, name="b")
        with pytest.raises(UsageError, match=rf"index {b.id} differs from {a.id} in sequences, tokens \([\d,]+ and "):
            match_indexes(MatchConfig(), a, b, work)
        assert not list_runs(work, "matching")

    def test_other_classes(self, work: Path, tokens: TokenMap):
        a = given_index(work, planted(tokens, 4), tokens, name="a")
        b = given_index(work, planted(tokens, 4), tokens, IndexConfig(classes=("normal", "sink")), name="b")
        with pytest.raises(UsageError, match=r"token classes that count \(normal and normal\+sink\)"):
            match_indexes(MatchConfig(), a, b, work)

    @pytest.mark.parametrize(("named", "why"), [([], "1 finished index runs"), (["latest"], "one index was named")])
    def test_one_index_alone(self, work: Path, tokens: TokenMap, named: list[str], why: str, capsys):
        given_index(work, planted(tokens, 4), tokens)
        assert main(["match", *named, "--root", str(work)]) == 2
        assert why in " ".join(capsys.readouterr().err.split())

    @pytest.mark.parametrize("settings", [{"quantile": 0.0}, {"min_implied": 1.5}, {"min_fired": 0}])
    def test_settings_out_of_range(self, settings: dict):
        with pytest.raises(ValueError, match=next(iter(settings))):
            MatchConfig(**settings)

    def test_a_damaged_part_of_an_index_is_named(self, work: Path, tokens: TokenMap):
        a, b = (given_index(work, planted(tokens, 4, seed=i), tokens, name=str(i)) for i in range(2))
        part = b.folder / "parts" / "events-00000.parquet"
        bytes_of = bytearray(part.read_bytes())
        bytes_of[4 : len(bytes_of) // 2] = bytes(len(bytes_of) // 2 - 4)
        part.write_bytes(bytes_of)
        with pytest.raises(UsageError, match=rf"events-00000\.parquet is damaged.*monosem index --repair {b.id}"):
            match_indexes(MatchConfig(), a, b, work)
