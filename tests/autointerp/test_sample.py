"""What a trial is made of: silent contexts of several kinds, marks that tell nothing, exact base rates, no memory."""

import gc
import shutil
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from given_index import planted, tokens_of, with_dictionary
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packed import map_of, packed

from app.workbench import Workbench
from autointerp.index.groups import begins
from autointerp.index.neighbours import neighbours
from autointerp.latent import ACTIVE, Item, Trial
from autointerp.sample import EVIDENCE, SampleConfig, Sampler, explain_side, select_side
from autointerp.sample_side import Events, Side
from autointerp.sample_silent import fires_at, spread
from store.errors import UsageError
from store.feature_index import FeatureIndex, Fired
from store.index import CURRENT, publish, write_part
from store.latents import Window, latent_page
from store.run import find_run
from store.token_map import TokenMap

CFG = SampleConfig(n_explain=10, n_score=16, min_contexts=3, min_docs=2, max_density=0.5, half_window=4)


@pytest.fixture(scope="module")
def sampler(tiny_root: Path) -> Sampler:
    return Sampler(Workbench.open(tiny_root).index, CFG)


@pytest.fixture(scope="module")
def latents(sampler: Sampler) -> list[int]:
    return sampler.choose(12)


@pytest.fixture(scope="module")
def rare(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Sampler:
    """Latents 0 to 7 fire seldom and independently of each other; 8 never; 9 always; 10 in a single context."""
    work = tmp_path_factory.mktemp("rare") / "runs"
    harvest = find_run(tiny_root, "latest", "activations")
    shutil.copytree(harvest.folder, work / "activations" / harvest.id)
    tokens = tokens_of(harvest, tmp_path_factory.mktemp("tokens"))
    dense = planted(tokens, 11, density=0.015)
    dense[:, 8], dense[:, 9], dense[:, 10] = 0, 1, 0
    dense[np.flatnonzero(tokens.char_start >= 0)[5], 10] = 1
    rows = torch.nn.functional.normalize(torch.randn(11, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    run = with_dictionary(work, rows, dense, tokens, "rare")
    write_part(run.folder, "neighbours", neighbours({"decoder": rows}, 5))
    (run.folder / CURRENT).unlink()
    publish(run)
    return Sampler(FeatureIndex(run.folder), CFG)


def peaks(windows: tuple[Window, ...]) -> list[tuple[int, int]]:
    return [(window.seq, window.start + window.peak) for window in windows]


def of_kind(trial: Trial, kind: str) -> list[Item]:
    return [item for item in trial.items if item.kind == kind]


def fired_in(sampler: Sampler, latent: int, window: Window) -> bool:
    """Whether any event of the latent lies in the window, by the index's own rows."""
    query = "SELECT count(*) AS n FROM events WHERE latent = ? AND seq = ? AND pos >= ? AND pos < ?"
    bounds = [window.start, window.start + len(window.tokens)]
    return sampler.index.arrow(query, [latent, window.seq, *bounds]).to_pylist()[0]["n"] > 0


class TestKinds:
    def test_are_as_many_as_asked_for_where_there_are_enough(self, rare: Sampler):
        for latent in range(8):
            kinds = rare.trial(latent).kinds
            assert kinds == {ACTIVE: 16, "random": 8, "neighbour": 4, "same_token": 4}

    def test_random_ones_stand_in_for_what_is_not_found(self, rare: Sampler):
        alone = Sampler(rare.index, replace(CFG, n_neighbours=0))
        assert alone.trial(0).kinds == {ACTIVE: 16, "random": 12, "same_token": 4}
        none = Sampler(rare.index, replace(CFG, neighbour_share=0.0, same_token_share=0.0))
        assert none.trial(0).kinds == {ACTIVE: 16, "random": 16}
        only = Sampler(rare.index, replace(CFG, neighbour_share=0.5, same_token_share=0.5))
        assert only.trial(0).kinds == {ACTIVE: 16, "neighbour": 8, "same_token": 8}

    @pytest.mark.parametrize("which", ["sampler", "rare"])
    def test_every_silent_one_is_silent_over_its_whole_window(self, which: str, request: pytest.FixtureRequest):
        sampler: Sampler = request.getfixturevalue(which)
        for latent in sampler.choose(6):
            for item in sampler.trial(latent).items:
                assert fired_in(sampler, latent, item.window) == item.active
                assert any(item.window.values) == item.active

    def test_neighbours_fire_where_they_are_said_to(self, rare: Sampler):
        others = rare.index.sql("SELECT other FROM neighbours WHERE latent = 3 AND side = 'decoder' AND rank < 5")
        for item in of_kind(rare.trial(3), "neighbour"):
            here = "SELECT latent FROM events WHERE seq = ? AND pos = ?"
            at = [item.window.seq, item.window.start + item.window.peak]
            assert set(rare.index.sql(here, at)["latent"]) & set(others["other"])

    def test_same_tokens_are_ones_on_which_it_fires(self, rare: Sampler):
        for latent in range(8):
            fired = rare.index.events(latent)
            on = set(rare.index.tokens.token_ids[rare.index.tokens.places(fired.seq, fired.pos)].tolist())
            for item in of_kind(rare.trial(latent), "same_token"):
                assert item.window.token_ids[item.window.peak] in on

    def test_no_place_is_used_twice_and_pieces_are_not_while_others_are_free(self, rare: Sampler):
        for latent in range(8):
            silent = rare.trial(latent).silent
            assert len(set(peaks(silent))) == len(silent)
        tokens = rare.index.tokens
        places = np.repeat(tokens.piece_start[:6], 2) + np.tile([0, 1], 6)
        first = spread(tokens, places, places[:1], 5)
        assert tokens.pieces(first).tolist() == [1, 2, 3, 4, 5]
        assert len(spread(tokens, places, places[:1], 99)) == 11

    def test_latents_do_not_share_draws(self, rare: Sampler):
        drawn = [set(peaks(tuple(item.window for item in of_kind(rare.trial(i), "random")))) for i in range(8)]
        assert max(len(a & b) for i, a in enumerate(drawn) for b in drawn[:i]) <= 1

    def test_all_are_from_the_score_side(self, rare: Sampler):
        for latent in range(8):
            assert not any(explain_side(doc_id, 0) for doc_id in rare.trial(latent).doc_ids)

    def test_marks_of_silent_ones_are_where_those_of_active_ones_are(self, rare: Sampler):
        for latent in range(8):
            trial = rare.trial(latent)
            both = [
                Counter(tuple(at - i.window.peak for at in i.marked) for i in trial.items if i.active == on)
                for on in (True, False)
            ]
            assert (both[0] - both[1]).total() <= 1
            assert all(i.marked == fires_at(i.window) for i in trial.items if i.active)


class TestOrder:
    def test_is_of_the_stored_seed_and_the_latents_own(self, rare: Sampler):
        found = [rare.trial(latent) for latent in range(8)]
        assert found == [rare.trial(latent) for latent in range(8)]
        assert len({trial.seed for trial in found}) == 8
        orders = {tuple(item.active for item in trial.items) for trial in found}
        assert len(orders) == 8
        for trial in found:
            back = np.argsort(np.random.default_rng(trial.seed).permutation(len(trial.items)))
            ordered = [trial.items[i] for i in back]
            assert [item.active for item in ordered] == [True] * 16 + [False] * 16
            values = [item.window.value for item in ordered[:16]]
            assert values == sorted(values, reverse=True)

    def test_another_seed_is_another_trial(self, rare: Sampler):
        other = Sampler(rare.index, replace(CFG, seed=1)).trial(0)
        assert other.seed != rare.trial(0).seed
        assert set(peaks(other.silent)) != set(peaks(rare.trial(0).silent))


def events_of(sampler: Sampler, latent: int) -> Events:
    fired = sampler.index.events(latent)
    return Events(latent, fired, sampler.index.tokens.places(fired.seq, fired.pos), True)


def brute_force(side: Side, events: Events) -> float:
    """A window around every token of text, one by one."""
    fired, n_active, n = set(events.places.tolist()), 0, 0
    for place in range(len(side.tokens)):
        here = np.array([place])
        if side.tokens.char_start[place] >= 0 and side.has[side.tokens.documents(here)[0]]:
            spans = side.spans(here)
            n_active += any(i in fired for i in range(int(spans.start[0]), int(spans.stop[0])))
            n += 1
    assert n == side.n_windows
    return n_active / n


class TestBaseRate:
    def test_is_the_share_of_all_windows(self, rare: Sampler, sampler: Sampler):
        for each, latent in ((rare, 0), (rare, 10), (sampler, sampler.choose(1)[0])):
            side, events = each._sides["score"], events_of(each, latent)
            assert each.trial(latent).base_rate == pytest.approx(brute_force(side, events), abs=1e-12)

    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 10**6), half_window=st.integers(0, 7), n=st.integers(0, 12))
    def test_is_exact_whatever_is_packed_where(
        self, tmp_path_factory: pytest.TempPathFactory, seed: int, half_window: int, n: int
    ):
        tokens = packed_tokens(tmp_path_factory.mktemp("packed"), seed % 5)
        random = np.random.default_rng(seed)
        places = np.sort(random.choice(len(tokens), n, replace=False))
        seq, pos = tokens.positions(places)
        fired = Fired(seq, pos, tokens.documents(places), np.ones(n, np.float32))
        side = Side(tokens, half_window, random.random(tokens.n_docs) < 0.6)
        events = Events(0, fired, places, True)
        found = side.share_active(events)
        if side.n_windows:
            assert found == pytest.approx(brute_force(side, events), abs=1e-12)
        else:
            assert found is None

    def test_cannot_be_told_of_events_that_are_not_all_kept(self, rare: Sampler):
        events = events_of(rare, 0)._replace(complete=False)
        assert rare._sides["score"].share_active(events) is None


def packed_tokens(folder: Path, seed: int) -> TokenMap:
    return map_of(folder, packed(seed, n_seqs=4))


class TestEvidence:
    def test_top_holds_the_strongest_peaks(self, rare: Sampler):
        found = rare.evidence(2)
        fired = rare.index.events(2)
        own = np.isin(fired.doc_id, rare.explain_docs)
        order = np.lexsort((fired.value, fired.doc_id, fired.seq))
        order = order[own[order]]
        ends = np.append(begins(fired.seq[order], fired.doc_id[order])[1:], len(order)) - 1
        expected = np.sort(fired.value[order][ends])[::-1][: CFG.n_explain]
        assert [w.value for w in found.top] == pytest.approx(expected.tolist())
        assert min(w.value for w in found.windows) < min(w.value for w in found.top)

    def test_silent_ones_are_silent_and_on_its_tokens_where_possible(self, rare: Sampler):
        found = rare.evidence(2).silent
        assert len(found) == CFG.n_silent
        assert not any(fired_in(rare, 2, w) for w in found)
        fired = rare.index.events(2)
        on = set(rare.index.tokens.token_ids[rare.index.tokens.places(fired.seq, fired.pos)].tolist())
        assert any(w.token_ids[w.peak] in on for w in found)

    def test_everything_is_from_the_explain_side(self, rare: Sampler):
        for latent in range(8):
            assert all(explain_side(w.doc_id, 0) for w in rare.evidence(latent).shown)

    def test_neighbours_fire_and_it_does_not_nearest_first(self, rare: Sampler):
        query = "SELECT other FROM neighbours WHERE latent = 1 AND side = 'decoder' AND rank < 5 ORDER BY rank"
        nearest = [other for other in rare.index.sql(query)["other"] if other not in (8, 9, 10)]
        for found in (rare.evidence(1).neighbours, rare.trial(1).neighbours):
            assert [n.latent for n in found if n.latent not in (9, 10)] == nearest
            assert [n.cosine for n in found] == sorted((n.cosine for n in found), reverse=True)
            for neighbour in found:
                assert 1 <= len(neighbour.windows) <= CFG.per_neighbour
                for w in neighbour.windows:
                    assert w.values[w.peak] == pytest.approx(w.value)
                    assert fired_in(rare, neighbour.latent, w)
                    assert not fired_in(rare, 1, w)

    def test_logits_are_the_indexs(self, sampler: Sampler, latents: list[int]):
        found, page = sampler.evidence(latents[0]), latent_page(sampler.index, latents[0])
        assert (found.promoted, found.suppressed) == (page.promoted, page.suppressed)
        assert found.promoted

    @pytest.mark.parametrize("part", sorted(EVIDENCE))
    def test_only_what_is_wanted_is_looked_for(self, sampler: Sampler, latents: list[int], part: str):
        full, found = (sampler.evidence(latents[0], wants) for wants in (EVIDENCE, {part}))
        fields = {"logits": {"promoted", "suppressed"}}.get(part, {part})
        for name in ("windows", "top", "silent", "neighbours", "promoted", "suppressed"):
            assert getattr(found, name) == (getattr(full, name) if name in fields else ())

    def test_the_same_holds_of_trials(self, rare: Sampler):
        full = rare.trial(0)
        assert rare.trial(0, {"items"}) == replace(full, neighbours=())
        assert rare.trial(0, {"neighbours"}) == replace(full, items=(), base_rate=None)

    def test_an_unknown_part_lists_the_known(self, rare: Sampler):
        with pytest.raises(ValueError, match=r"wants=\['x'\]: choose of logits, neighbours, silent, top, windows"):
            rare.evidence(0, {"x"})
        with pytest.raises(ValueError, match="part='explain': choose score or select"):
            rare.trial(0, part="explain")


class TestSelectionSide:
    def test_is_disjoint_from_what_is_explained_and_scored_on(self, rare: Sampler):
        three = Sampler(rare.index, replace(CFG, select_share=0.2))
        docs = {"explain": set(), "score": set(), "select": set()}
        for latent in range(8):
            docs["explain"] |= {w.doc_id for w in three.evidence(latent).shown}
            for part in ("score", "select"):
                docs[part] |= three.trial(latent, part=part).doc_ids
        assert all(docs.values())
        assert not docs["explain"] & docs["score"]
        assert not docs["explain"] & docs["select"]
        assert not docs["score"] & docs["select"]
        assert three.explain_docs == rare.explain_docs, "what is explained from stays the same"

    def test_is_as_large_as_said(self):
        n = sum(not explain_side(i, 3) and select_side(i, 3, 0.2) for i in range(20_000))
        assert n / 20_000 == pytest.approx(0.2, abs=0.012)

    def test_is_refused_where_no_documents_are_kept_for_it(self, rare: Sampler):
        with pytest.raises(UsageError, match="set select_share"):
            rare.trial(0, part="select")


class TestStatus:
    def test_counts_every_latent_once(self, rare: Sampler, sampler: Sampler):
        assert rare.status() == (1, 1, 1, 8)
        for each in (rare, sampler):
            assert each.status().width == each.index.n_latents
            assert each.status().eligible == len(each.choose(10**6))

    def test_density_is_the_indexs(self, rare: Sampler):
        expected = rare.index.sql("SELECT density FROM latents WHERE latent = 3")["density"][0]
        assert rare.density(3) == expected
        with pytest.raises(UsageError, match="there is no latent 11: choose 0 to 10"):
            rare.density(11)


class TestSelect:
    def test_gives_the_latents_of_the_first_column_once_each(self, rare: Sampler):
        assert rare.select("SELECT latent, density FROM latents WHERE NOT dead ORDER BY density DESC LIMIT 1") == [9]
        assert rare.select("SELECT latent FROM events WHERE latent < 4 ORDER BY latent DESC") == [3, 2, 1, 0]

    @pytest.mark.parametrize(
        ("sql", "said"),
        [
            ("SELECT latent FROM latents", r"1 of 11 selected latents never fire .* \(8\): .*WHERE NOT dead"),
            ("SELECT density, latent FROM latents", "first column is 'density': write SELECT latent"),
            ("SELECT latent FROM latents WHERE latent > 99", "no latent"),
            ("SELECT 11 AS latent", "there is no latent 11: choose 0 to 10"),
            ("SELECT 'a' AS latent", "there is no latent a"),
            ("SELECT NULL AS latent", "there is no latent None"),
            ("DROP TABLE latents", "takes one SELECT"),
        ],
    )
    def test_says_in_one_line_what_is_wrong(self, rare: Sampler, sql: str, said: str):
        with pytest.raises(UsageError, match=said) as raised:
            rare.select(sql)
        assert "\n" not in str(raised.value)


def test_nothing_is_kept_of_a_latent(rare: Sampler):
    def held_after_a_round() -> int:
        for latent in range(8):
            rare.trial(latent), rare.evidence(latent)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    held_after_a_round()  # what is remembered for all latents has its full size now
    tracemalloc.start()
    try:
        held = [held_after_a_round() for _ in range(4)]
    finally:
        tracemalloc.stop()
    # A trial is tens of kilobytes: a few hundred bytes a latent are counters and caches of strings.
    assert held[-1] - held[0] < 3 * 8 * 1_000


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("neighbour_share", 0.8, r"neighbour_share \+ same_token_share=1.05 is out of range: choose from 0 to 1"),
        ("select_share", 0.5, "select_share=0.5 is out of range"),
        ("n_score", -1, "n_score=-1 is out of range: choose 0 or more"),
        ("seed", -1, "seed=-1"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: float, said: str):
    with pytest.raises(ValueError, match=said):
        SampleConfig(**{field: value})
