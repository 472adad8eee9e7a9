"""Sequences that hold several documents: no window reaches into another one, and the split goes by each token's own."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.index.config import IndexConfig
from autointerp.index.contexts import Peaks, Reading, peaks, strongest
from autointerp.index.encode import Codes
from autointerp.index.gather import LatentEvents, runs_of
from autointerp.index.given import index_codes
from autointerp.sample import COUNTED, SampleConfig, Sampler, explain_side
from store import layout
from store.feature_index import FeatureIndex
from store.index import publish
from store.latents import windows
from store.run import start_run
from store.tables import DOCUMENTS, SEQUENCES
from store.token_map import TokenMap, write_token_map

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


def write_harvest(folder: Path, parts: list[list[dict]], texts: list[str]) -> None:
    """Documents and tokens as a harvest has them, a window for each part."""
    documents = [
        {"doc_id": i, "source": "s", "title": f"{i}", "split": "train", "n_tokens": 400, "text": text}
        for i, text in enumerate(texts)
    ]
    made = [(layout.document_part(folder, 0), documents, DOCUMENTS)]
    made += [(layout.token_part(folder, number), rows, SEQUENCES) for number, rows in enumerate(parts)]
    for path, rows, schema in made:
        path.parent.mkdir(exist_ok=True, parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def map_of(folder: Path, *parts: list[dict]) -> TokenMap:
    """The tokens of `parts`, over documents of one letter each."""
    rows = [{"char_end": [c + 1 if c >= 0 else -1 for c in row["char_start"]], **row} for part in parts for row in part]
    rows = [{"text_class": [0] * len(row["token_ids"]), **row} for row in rows]
    write_harvest(folder / "harvest", [rows], [chr(65 + i) * 400 for i in range(N_DOCS)])
    write_token_map(folder / "text", folder / "harvest")
    return TokenMap(folder / "text")


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
def test_a_window_ends_with_its_document_and_begins_on_text(
    tmp_path_factory: pytest.TempPathFactory, seed: int, before: int, after: int
):
    rows = packed(seed, n_seqs=4)
    places = map_of(tmp_path_factory.mktemp("map"), rows[::-1])
    seq, pos = np.repeat(np.arange(4), N_CTX), np.tile(np.arange(N_CTX), 4)
    at = places.places(seq, pos)
    assert [part.tolist() for part in places.positions(at)] == [seq.tolist(), pos.tolist()]
    spans = places.spans(at, before, after)
    found = list(zip(pos + spans.start - at, pos + spans.stop - at, strict=True))
    assert found == [expected_span(rows[s], int(p), before, after) for s, p in zip(seq, pos, strict=True)]


def test_a_separator_belongs_to_no_window_of_its_neighbours(tmp_path: Path):
    row = {
        "seq": 0,
        "token_ids": list(range(9)),
        "doc_ids": [5, 5, 5, 5, 7, 7, 7, 7, 7],
        "char_start": [-1, 0, 1, -1, -1, 0, -1, 1, 2],
    }
    places = map_of(tmp_path, [row])
    at = np.arange(9)
    spans = places.spans(at, 9, 9)
    assert spans.start.tolist() == [0, 1, 1, 1, 4, 5, 5, 5, 5]
    assert spans.stop.tolist() == [3, 3, 3, 4, 9, 9, 9, 9, 9]
    assert places.piece_doc.tolist() == [5, 7]


def test_one_document_in_two_neighbouring_sequences_is_two_pieces(tmp_path: Path):
    rows = [{"seq": i, "token_ids": [1, 2], "doc_ids": [3, 3], "char_start": [0, 1]} for i in range(2)]
    spans = map_of(tmp_path, rows).spans(np.array([1, 2]), 5, 5)
    assert (spans.start.tolist(), spans.stop.tolist()) == ([0, 2], [2, 4])


@settings(max_examples=25, deadline=None)
@given(text=st.text(min_size=1, max_size=60).filter(lambda t: t.isprintable()), seed=st.integers(0, 10**6))
def test_tokens_are_the_documents_own_characters_whatever_they_take_in_bytes(
    tmp_path_factory: pytest.TempPathFactory, text: str, seed: int
):
    folder = tmp_path_factory.mktemp("map")
    cuts = sorted({0, len(text), *np.random.default_rng(seed).integers(0, len(text) + 1, 5).tolist()})
    row = {"seq": 0, "token_ids": [0] * len(cuts), "doc_ids": [1] * len(cuts), "text_class": [0] * len(cuts)}
    row |= {"char_start": [-1, *cuts[:-1]], "char_end": [-1, *cuts[1:]]}
    write_harvest(folder / "harvest", [[row]], ["é before", text])
    write_token_map(folder / "text", folder / "harvest")
    found = TokenMap(folder / "text")
    assert found.texts(0, len(cuts)) == ("", *(text[a:b] for a, b in pairwise(cuts)))
    assert found.document(1) == text


def test_contexts_that_read_the_same_are_one_wherever_they_are_packed(tmp_path: Path):
    """The same document after another one, and at the start of a sequence; and the same in capitals."""
    first = {"seq": 0, "token_ids": [9, 1, 2, 3], "doc_ids": [0] * 4, "char_start": [-1, 0, 1, 2]}
    second = {
        "seq": 1,
        "token_ids": [9, 5, 5, 8, 1, 2, 3],
        "doc_ids": [1] * 3 + [2] * 4,
        "char_start": [-1, 0, 1, -1, 0, 1, 2],
    }
    third = {"seq": 2, "token_ids": [9, 6, 7, 3], "doc_ids": [3] * 4, "char_start": [-1, 0, 1, 2]}
    fourth = {"seq": 3, "token_ids": [9, 2, 1, 3], "doc_ids": [4] * 4, "char_start": [-1, 0, 1, 2]}
    tokens = map_of(tmp_path, [first, second, third, fourth])
    places = tokens.places(np.arange(4), np.array([2, 5, 2, 2]))
    bounds = np.array([0, 4])
    fired = runs_of(bounds, places, tokens)
    values = np.array([2, 1, 3, 0.5], np.float32)
    events = LatentEvents(bounds, places, fired.piece, 0, values, np.zeros(1), fired)
    words = ["", "one", " two", "x", "", "other", "ONE", "Two ", "", ""]
    found = strongest(peaks(events), Reading.of(tokens, words), 5)
    assert tokens.positions(found.place)[0].tolist() == [2, 3], (
        "two of three are gone; the same words in another order stay"
    )
    assert found.n_same.tolist() == [3, 1]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FeatureIndex:
    """An index over packed sequences, made by hand; each document is one letter over and over, so that leaks show."""
    root = tmp_path_factory.mktemp("packed")
    rows = packed(0)
    with start_run(root, "activations", {}, {}) as activations:
        write_harvest(activations.folder, [rows[:10], rows[10:]], [chr(65 + i) * 400 for i in range(N_DOCS)])
        activations.finish({})
    with start_run(root, "index", {}, {"activations": activations.id}) as run:
        cfg = IndexConfig(n_top=6, per_band=3, half_window=5)
        words = [f"t{i}" for i in range(50)]
        codes = [_codes(rows[:10], 1), _codes(rows[10:], 2)]
        run.finish(index_codes(run.folder, activations.folder, codes, D_SAE, words, cfg))
    publish(run)
    return FeatureIndex(run.folder)


def _codes(rows: list[dict], seed: int) -> Codes:
    random = np.random.default_rng(seed)
    on = np.zeros((len(rows) * N_CTX, D_SAE), bool)
    text = np.array([row["char_start"] for row in rows]).ravel() >= 0
    for place in np.flatnonzero(text).tolist():
        seq, pos = divmod(place, N_CTX)
        explains = explain_side(rows[seq]["doc_ids"][pos], CFG.seed)
        on[place] = random.random(D_SAE) < 0.08
        on[place, ALWAYS] = pos % 3 == 0
        on[place, SCORE_ONLY] &= not explains
    token, latent = np.nonzero(on)
    values = (random.exponential(size=len(token)) + 0.1).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(on.sum(axis=1))])
    by_class = np.stack([on.sum(axis=0), *np.zeros((3, D_SAE), int)])
    return Codes(offsets, latent.astype(np.int32), values, text, by_class)


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
            assert window.chars[1] - window.chars[0] == len(window.text)

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
        explain = everything.explain_docs
        score = sorted(set(range(N_DOCS)) - set(explain))
        counted = {
            row["latent"]: row for row in index.arrow(COUNTED, [0, index.n_latents, 1.0, explain, score]).to_pylist()
        }
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
    root = tmp_path / "[a-z]* it's"
    rows = packed(0, 2)
    with start_run(root, "activations", {}, {}) as activations:
        write_harvest(activations.folder, [rows], [chr(65 + i) * 400 for i in range(N_DOCS)])
        activations.finish({})
    with start_run(root, "index", {}, {"activations": activations.id}) as run:
        words = [f"t{i}" for i in range(50)]
        run.finish(index_codes(run.folder, activations.folder, [_codes(rows, 1)], D_SAE, words, IndexConfig()))
    publish(run)
    found = FeatureIndex(run.folder)
    assert len(found.sql("SELECT * FROM sequences")) == 2
    assert len(found.sql("SELECT * FROM events")) == run.results["n_events"]


def test_where_the_strongest_read_the_same_the_others_are_looked_at(tmp_path: Path):
    """Seven hundred equal peaks do not keep three hundred different ones from being shown."""
    n, same = 1000, 700
    rows = [
        {"seq": i, "token_ids": [0 if i < same else i], "doc_ids": [i % N_DOCS], "char_start": [i]} for i in range(n)
    ]
    tokens = map_of(tmp_path, rows)
    words = ["same", *(f"word{'abcdefghij'[i % 10]}{chr(97 + i // 10 % 26)}{chr(97 + i // 260)}" for i in range(1, n))]
    found = Peaks(np.zeros(n, np.int64), np.arange(n), np.linspace(2, 1, n, dtype=np.float32))
    kept = strongest(found, Reading.of(tokens, words), 20)
    assert kept.place.tolist() == [0, *range(same, same + 19)]
    assert kept.n_same.tolist() == [same, *[1] * 19]
