"""Matching what was planted: permuted copies, split families, sampled and dead latents; and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from given_index import given_index, planted, tokens_of, with_dictionary
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli import main
from autointerp.index import gather, ranges
from autointerp.index.config import IndexConfig
from autointerp.matching.config import MatchConfig
from autointerp.matching.directions import why_no_cosine
from autointerp.matching.job import match_indexes
from autointerp.matching.pairing import Ranking
from store.errors import UsageError
from store.matching import Matching
from store.matching_tables import TABLES
from store.run import Run, find_run, list_runs, start_run
from store.token_map import TokenMap


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

    def test_other_sites_have_cosines_only_in_the_residual_basis(self, matched_root: Path, matching: Matching):
        a, b = (find_run(matched_root, matching.run.inputs[side], "index") for side in "ab")
        assert why_no_cosine(a, b) == ""
        sae = find_run(matched_root, b.inputs["sae"], "sae")
        for hook, refused in (("blocks.0.hook_resid_post", False), ("blocks.0.mlp.hook_post", True)):
            config = {**sae.config, "hook_point": hook}
            with start_run(matched_root, "sae", config, sae.inputs) as other:
                other.finish({})
            moved = Run(b.folder, {**b.manifest, "inputs": {**b.inputs, "sae": other.id}})
            assert bool(why_no_cosine(a, moved)) == refused
            shutil.rmtree(other.folder)


class TestRefusals:
    def test_an_index_with_itself(self, matched_root: Path, matching: Matching):
        a = find_run(matched_root, matching.run.inputs["a"], "index")
        with pytest.raises(UsageError, match="which matches itself: name another"):
            match_indexes(MatchConfig(), a, a, matched_root)

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

    @pytest.mark.parametrize("bad", [{"quantile": 0.0}, {"min_implied": 1.5}, {"min_fired": 0}])
    def test_settings_out_of_range(self, bad: dict):
        with pytest.raises(ValueError, match=next(iter(bad))):
            MatchConfig(**bad)

    def test_a_damaged_part_of_an_index_is_named(self, work: Path, tokens: TokenMap):
        a, b = (given_index(work, planted(tokens, 4, seed=i), tokens, name=str(i)) for i in range(2))
        part = b.folder / "parts" / "events-00000.parquet"
        bytes_of = bytearray(part.read_bytes())
        bytes_of[4 : len(bytes_of) // 2] = bytes(len(bytes_of) // 2 - 4)
        part.write_bytes(bytes_of)
        with pytest.raises(UsageError, match=rf"events-00000\.parquet is damaged.*monosem index --repair {b.id}"):
            match_indexes(MatchConfig(), a, b, work)


def ranked(values: np.ndarray, size: int) -> Ranking:
    ranking = Ranking(*values.shape, keep=True)
    for first in range(0, len(values), size):
        ranking.see(first, values[first : first + size])
    return ranking


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.integers(0, 10_000))
def test_ranking_is_the_same_from_either_side_and_in_any_blocks(n_a: int, n_b: int, size: int, seed: int):
    random = np.random.default_rng(seed)
    values = random.uniform(-1, 1, (n_a, n_b)).astype(np.float32).astype(np.float64)
    values[random.random(n_a) < 0.2] = np.nan
    values[:, random.random(n_b) < 0.2] = np.nan
    forth, back = ranked(values, size), ranked(values.T, size)
    for side, turned in ("ab", "ba"):
        for one, two in zip(forth.of(side), back.of(turned), strict=True):
            assert np.array_equal(one, two, equal_nan=True)
    assert set(zip(*forth.mutual[:2], strict=True)) == set(zip(*back.mutual[1::-1], strict=True))
    here, there = forth.one_to_one(), back.one_to_one()
    assert here.value.sum() == pytest.approx(there.value.sum())
    judged = ~np.isnan(values)
    assert len(here.a) == min(judged.any(1).sum(), judged.any(0).sum())
    assert np.array_equal(values[here.a, here.b], here.value)
    assert (forth.best_a[here.a] >= here.value).all()


def test_blocks_chunks_and_parts_do_not_change_a_figure(work: Path, tokens: TokenMap, monkeypatch: pytest.MonkeyPatch):
    one, two = planted(tokens, 12, 0.1), planted(tokens, 9, 0.1, seed=3)
    two[:, :3] = one[:, :3] * (one[:, :3] > 0.4)
    whole = [given_index(work, dense, tokens, name=f"whole {i}") for i, dense in enumerate((one, two))]
    once = Matching(match_indexes(MatchConfig(), *whole, work).folder)
    monkeypatch.setattr(ranges, "ranges", lambda n_kept, most: gather.ranges(n_kept, most=2000))
    monkeypatch.setattr("autointerp.matching.products.ENTRIES", 20)
    monkeypatch.setattr("autointerp.matching.side.CHUNK_EVENTS", 700)
    parts = [given_index(work, dense, tokens, name=f"parts {i}") for i, dense in enumerate((one, two))]
    assert len(list((parts[0].folder / "parts").glob("events-*"))) > 3
    cut = Matching(match_indexes(MatchConfig(), *parts, work).folder)
    for table in TABLES:
        pd.testing.assert_frame_equal(once.sql(f"FROM {table}"), cut.sql(f"FROM {table}"), rtol=1e-9, obj=table)
