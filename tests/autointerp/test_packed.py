"""Sequences that hold several documents: no window reaches into another one, and the split goes by each token's own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from autointerp.contexts import Layout, choose
from autointerp.events import Events
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sample import ELIGIBLE, SampleConfig, Sampler, explain_side
from store import layout
from store.index import FeatureIndex, publish, write_part
from store.latents import windows
from store.run import start_run
from store.tables import DOCUMENTS, SEQUENCES

N_DOCS, N_SEQS, N_CTX = 24, 30, 40
D_SAE, ALWAYS, SCORE_ONLY = 6, 4, 5
"""The last two latents fire on every third token, and on documents of the score side only."""
CFG = SampleConfig(n_explain=8, n_score=10, min_contexts=2, min_docs=2, max_density=0.6, half_window=6)


def packed(seed: int, n_seqs: int = N_SEQS, n_ctx: int = N_CTX) -> list[dict]:
    """Sequences of random pieces, each a separator and some of its document's tokens; some have a gap within."""
    random = np.random.default_rng(seed)
    reached = [0] * N_DOCS
    rows = []
    for seq in range(n_seqs):
        doc_ids, char_start = [], []
        while len(doc_ids) < n_ctx:
            doc_id = int(random.integers(N_DOCS))
            n = int(random.integers(1, 12))
            spans = [-1, *range(reached[doc_id], reached[doc_id] + n)]
            if n > 6:
                spans[4] = -1
            reached[doc_id] += n
            doc_ids += [doc_id] * len(spans)
            char_start += spans
        rows.append(
            {
                "seq": seq,
                "token_ids": random.integers(0, 50, n_ctx).tolist(),
                "doc_ids": doc_ids[:n_ctx],
                "char_start": char_start[:n_ctx],
                "char_end": [start + 1 if start >= 0 else -1 for start in char_start[:n_ctx]],
                "text_class": [int(start < 0) for start in char_start[:n_ctx]],
            }
        )
    return rows


def table_of(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SEQUENCES)


def expected_span(row: dict, pos: int, before: int, after: int) -> tuple[int, int]:
    """The promise, token by token."""
    start = stop = pos
    while start > max(pos - before, 0) and row["doc_ids"][start - 1] == row["doc_ids"][pos]:
        start -= 1
    while stop < min(pos + after, len(row["doc_ids"]) - 1) and row["doc_ids"][stop + 1] == row["doc_ids"][pos]:
        stop += 1
    while start < pos and row["char_start"][start] < 0:
        start += 1
    while stop > pos and row["char_start"][stop] < 0:
        stop -= 1
    return start, stop + 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), before=st.integers(0, 9), after=st.integers(0, 9))
def test_a_window_ends_with_its_document_and_begins_on_text(seed: int, before: int, after: int):
    rows = packed(seed, n_seqs=4)
    places = Layout.of(table_of(rows[::-1]))
    seq, pos = np.repeat(np.arange(4), N_CTX), np.tile(np.arange(N_CTX), 4)
    at = places.places(seq, pos)
    assert [part.tolist() for part in places.positions(at)] == [seq.tolist(), pos.tolist()]
    spans = places.spans(at, before, after)
    found = list(zip(pos + spans.start - at, pos + spans.stop - at, strict=True))
    assert found == [expected_span(rows[s], int(p), before, after) for s, p in zip(seq, pos, strict=True)]


def test_a_separator_belongs_to_no_window_of_its_neighbours():
    row = {
        "seq": 0,
        "token_ids": list(range(9)),
        "doc_ids": [5, 5, 5, 5, 7, 7, 7, 7, 7],
        "char_start": [-1, 0, 1, -1, -1, 0, -1, 1, 2],
    }
    places = Layout.of(pa.Table.from_pylist([row]))
    at = np.arange(9)
    spans = places.spans(at, 9, 9)
    assert spans.start.tolist() == [0, 1, 1, 1, 4, 5, 5, 5, 5]
    assert spans.stop.tolist() == [3, 3, 3, 4, 9, 9, 9, 9, 9]
    assert places.doc_ids.tolist() == [5, 7]


def test_one_document_in_two_neighbouring_sequences_is_two_pieces():
    rows = [{"seq": i, "token_ids": [1, 2], "doc_ids": [3, 3], "char_start": [0, 1]} for i in range(2)]
    spans = Layout.of(pa.Table.from_pylist(rows)).spans(np.array([1, 2]), 5, 5)
    assert (spans.start.tolist(), spans.stop.tolist()) == ([0, 2], [2, 4])


def test_equal_contexts_are_one_wherever_they_are_packed():
    """The same document after another one, and at the start of a sequence."""
    first = {"seq": 0, "token_ids": [9, 1, 2, 3], "doc_ids": [0] * 4, "char_start": [-1, 0, 1, 2]}
    second = {
        "seq": 1,
        "token_ids": [9, 5, 5, 8, 1, 2, 3],
        "doc_ids": [1] * 3 + [2] * 4,
        "char_start": [-1, 0, 1, -1, 0, 1, 2],
    }
    columns = {"latent": [0, 0], "seq": [0, 1], "pos": [2, 5], "doc_id": [0, 2]}
    strongest = Events(
        **{name: np.array(values) for name, values in columns.items()},
        value=np.array([2.0, 1.0], np.float32),
        d_sae=1,
        n_tokens=11,
    )
    found = choose(strongest, Layout.of(pa.Table.from_pylist([first, second])), 4, 5, 1, 5, 0)
    assert [seq for seq, band in zip(found["seq"], found["band"], strict=True) if band == "top"] == [0]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FeatureIndex:
    """An index over packed sequences, made by hand; each document is one letter over and over, so that leaks show."""
    root = tmp_path_factory.mktemp("packed")
    rows = packed(0)
    documents = [
        {"doc_id": i, "source": "s", "title": f"{i}", "split": "train", "n_tokens": 400, "text": chr(65 + i) * 400}
        for i in range(N_DOCS)
    ]
    with start_run(root, "activations", {}, {}) as activations:
        for path, made, schema in (
            (layout.document_part(activations.folder, 0), documents, DOCUMENTS),
            (layout.token_part(activations.folder, 0), rows[:10], SEQUENCES),
            (layout.token_part(activations.folder, 1), rows[10:], SEQUENCES),
        ):
            path.parent.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(made, schema=schema), path)
        activations.finish({})
    events = _events(rows)
    with start_run(root, "index", {}, {"activations": activations.id}) as run:
        write_part(run.folder, "latents", _latents(events))
        write_part(run.folder, "events", {n: getattr(events, n) for n in ("latent", "seq", "pos", "doc_id", "value")})
        strongest = events.take(np.lexsort((-events.value, events.latent)))
        contexts = choose(strongest, Layout.of(table_of(rows)), 5, n_top=6, n_bands=4, per_band=3, seed=0)
        write_part(run.folder, "contexts", contexts)
        run.finish({})
    publish(run, activations)
    return FeatureIndex(run.folder)


def _events(rows: list[dict]) -> Events:
    random = np.random.default_rng(1)
    found = [
        (latent, row["seq"], pos, doc_id, random.exponential() + 0.1)
        for row in rows
        for pos, (doc_id, start) in enumerate(zip(row["doc_ids"], row["char_start"], strict=True))
        for latent in range(D_SAE)
        if start >= 0
        and (
            pos % 3 == 0
            if latent == ALWAYS
            else random.random() < 0.08 and not (latent == SCORE_ONLY and explain_side(doc_id, CFG.seed))
        )
    ]
    latent, seq, pos, doc_id, value = (np.array(column) for column in zip(*found, strict=True))
    return Events(latent, seq, pos, doc_id, value.astype(np.float32), d_sae=D_SAE, n_tokens=N_SEQS * N_CTX).sorted()


def _latents(events: Events) -> dict[str, list]:
    n = np.bincount(events.latent, minlength=D_SAE)
    zeros = [0.0] * D_SAE
    columns = ("mean", "mean_square", "max", "q50", "q90", "q99", "q999")
    return {
        "latent": list(range(D_SAE)),
        "n_fired": n.tolist(),
        "n_docs": [1] * D_SAE,
        "density": (n / events.n_tokens).tolist(),
        **dict.fromkeys(columns, zeros),
        "histogram": [[1]] * D_SAE,
    }


@pytest.fixture(scope="module")
def sampler(index: FeatureIndex) -> Sampler:
    return Sampler(index, CFG)


def letters(text: str) -> set[int]:
    return {ord(letter) - 65 for letter in text}


class TestContexts:
    def test_stored_windows_show_their_own_document_alone(self, index: FeatureIndex):
        found = [window for latent in range(D_SAE) for window in windows(index, latent)]
        assert len(found) > 50
        for window in found:
            assert letters(window.text) == {window.doc_id}
            assert window.title == str(window.doc_id)
            assert window.tokens[0]
            assert window.tokens[-1]
            assert window.values[window.peak] == pytest.approx(window.value)

    def test_drawn_windows_do_too(self, sampler: Sampler):
        for latent in range(D_SAE):
            trial = sampler.trial(latent)
            for window in (*sampler.evidence(latent).windows, *trial.active, *trial.silent):
                assert letters(window.text) == {window.doc_id}
                assert window.tokens[0]
                assert window.tokens[-1]


class TestSplit:
    def test_each_side_sees_only_its_own_documents_though_they_share_sequences(self, sampler: Sampler):
        shared = 0
        for latent in range(D_SAE):
            seen, judged = sampler.evidence(latent).windows, sampler.trial(latent)
            assert all(explain_side(window.doc_id, CFG.seed) for window in seen)
            assert not any(explain_side(doc_id, CFG.seed) for doc_id in judged.doc_ids)
            shared += len({w.seq for w in seen} & {w.seq for w in (*judged.active, *judged.silent)})
        assert shared > 0, "no sequence had documents of both sides: the test shows nothing"

    def test_what_fires_on_one_side_only_is_not_eligible(self, sampler: Sampler):
        assert sampler.evidence(SCORE_ONLY).windows == ()
        assert SCORE_ONLY not in sampler.choose(100)
        assert sampler.choose(100) == [0, 1, 2, 3, 4]

    def test_eligibility_counts_what_can_be_drawn(self, index: FeatureIndex):
        everything = Sampler(index, SampleConfig(n_explain=10**6, n_score=10**6, min_contexts=1, min_docs=1))
        counted = {row["latent"]: row for row in index.arrow(ELIGIBLE, [1.0, everything.explain_docs]).to_pylist()}
        query = "SELECT DISTINCT seq, doc_id FROM events WHERE latent = ?"
        for latent in range(D_SAE):
            fired = {(row["seq"], row["doc_id"]) for row in index.arrow(query, [latent]).to_pylist()}
            for side in ("explain", "score"):
                drawn = everything.evidence(latent).windows if side == "explain" else everything.trial(latent).active
                places = {(window.seq, window.doc_id) for window in drawn}
                assert places == {p for p in fired if explain_side(p[1], 0) == (side == "explain")}
                assert counted[latent][f"{side}_contexts"] == len(places) == len(drawn)
                assert counted[latent][f"{side}_docs"] == len({doc_id for _, doc_id in places})

    def test_the_peak_is_the_strongest_token_of_its_document_there(self, index: FeatureIndex, sampler: Sampler):
        query = "SELECT max(value) AS value FROM events WHERE latent = ? AND seq = ? AND doc_id = ?"
        for window in sampler.evidence(1).windows:
            strongest = index.arrow(query, [1, window.seq, window.doc_id]).to_pylist()[0]["value"]
            assert window.value == pytest.approx(strongest)


class TestSilent:
    def test_silent_windows_are_of_one_scoring_document_each_and_silent(self, sampler: Sampler):
        for latent in range(4):
            found = sampler.trial(latent).silent
            assert len(found) == len(sampler.trial(latent).active) == CFG.n_score
            assert len({(w.seq, w.start + w.peak) for w in found}) == len(found)
            for window in found:
                assert not any(window.values)
                assert not explain_side(window.doc_id, CFG.seed)
                assert window.tokens[window.peak], "centred on text, not on a separator"

    def test_a_neighbouring_document_in_which_it_fires_does_not_matter(self, sampler: Sampler, index: FeatureIndex):
        """It would if silence were asked of the sequence instead of the window."""
        fired = set(index.sql("SELECT DISTINCT seq FROM events WHERE latent = 0")["seq"])
        assert any(window.seq in fired for window in sampler.trial(0).silent)

    def test_where_none_is_silent_there_are_few_or_none(self, sampler: Sampler):
        for window in sampler.trial(ALWAYS).silent:
            assert len(window.tokens) < 6
            assert not any(window.values)


def test_with_all_documents_on_one_side_there_is_nothing_to_draw(index: FeatureIndex, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autointerp.sample.explain_side", lambda doc_id, seed: True)
    alone = Sampler(index, CFG)
    assert alone.evidence(0).windows
    assert alone.trial(0).active == alone.trial(0).silent == ()


def test_a_root_with_pattern_characters_is_published_like_any_other(tmp_path: Path):
    root = tmp_path / "[a-z]*"
    with start_run(root, "activations", {}, {}) as activations:
        path = layout.token_part(activations.folder, 0)
        path.parent.mkdir()
        pq.write_table(table_of(packed(0, 2)), path)
        activations.finish({})
    with start_run(root, "index", {}, {"activations": activations.id}) as run:
        run.finish({})
    publish(run, activations)
    assert len(FeatureIndex(run.folder).sql("SELECT * FROM sequences")) == 2
