"""Searches against brute force on the tiny model, and on documents and tokens made up here."""

import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli import main
from app.workbench import Workbench
from autointerp.embedders import HashedEmbedder
from autointerp.index.job import repair_index
from autointerp.search import SearchConfig, Searcher, matches
from autointerp.search.enrichment import enrichment, expected_share
from autointerp.search.explanations import K1, B, Texts, terms
from autointerp.search.meaning import EmbeddingFiles
from autointerp.search.spans import Stretches, TextRuns
from store.codes import CodeMap, codes_path, map_codes
from store.errors import UsageError
from store.run import EMBEDDINGS
from store.token_map import SEPARATOR, TokenMap


@pytest.fixture(scope="module")
def wb(tiny_root: Path) -> Workbench:
    return Workbench.open(tiny_root)


@pytest.fixture(scope="module")
def searcher(wb: Workbench) -> Searcher:
    return Searcher(wb.index)


@pytest.fixture(scope="module")
def values(wb: Workbench) -> np.ndarray:
    """`[n_latents, n_tokens]` what every latent is worth on every token."""
    out = np.zeros((wb.d_sae, len(wb.index.tokens)))
    for latent in range(wb.d_sae):
        fired = wb.index.events(latent)
        out[latent, wb.index.tokens.places(fired.seq, fired.pos)] = fired.value
    return out


def spans_of(tokens: TokenMap, pattern: bytes) -> list[tuple[int, int]]:
    """Matches of a pattern of one group, overlapping ones too."""
    return [m.span(1) for m in re.finditer(b"(?=(" + pattern + b"))", tokens.text.tobytes())]


def places_by_hand(tokens: TokenMap, start: int, stop: int) -> set[int]:
    over = (tokens.byte_start < stop) & (tokens.byte_end > start) & (tokens.char_start >= 0)
    return set(np.flatnonzero(over).tolist())


class TestByText:
    @pytest.mark.parametrize("query", ["harbour", "THE", "on day 2", "e", "Bela walked to the harbour on day"])
    def test_hits_and_values_are_those_of_the_dense_matrix(
        self, wb: Workbench, searcher: Searcher, values: np.ndarray, query: str
    ):
        tokens = wb.index.tokens
        counted = CodeMap(wb.index.folder, tokens.windows).counted(np.arange(len(tokens)))
        spans = spans_of(tokens, b"(?i:" + re.escape(query.encode()) + b")")
        judged = [sorted(p for p in places_by_hand(tokens, *span) if counted[p]) for span in spans]
        judged = [places for places in judged if places]
        found = searcher.search(query, cfg=SearchConfig(n=wb.d_sae))
        assert len(found) > 0
        for row in found.to_dict("records"):
            best = [values[row["latent"], places].max() for places in judged]
            assert row["n_judged"] == len(judged)
            assert row["n_hits"] == sum(value > 0 for value in best)
            assert row["max"] == pytest.approx(max(best))
            density = row["density"]
            expected = np.mean([1 - (1 - density) ** len(places) for places in judged])
            assert row["expected"] == pytest.approx(expected)
            assert f"«{query.lower()}»" in row["example"].lower()
            place = tokens.places(np.array([row["seq"]]), np.array([row["pos"]]))[0]
            assert values[row["latent"], place] == pytest.approx(row["max"])
        left_out = set(range(wb.d_sae)) - set(found["latent"])
        for latent in left_out:
            density = wb.page(latent).statistics["density"]
            share = np.mean([values[latent, places].max() > 0 for places in judged])
            assert share <= np.mean([1 - (1 - density) ** len(places) for places in judged])

    def test_an_expression_finds_what_re_finds(self, wb: Workbench):
        tokens = wb.index.tokens
        for pattern in ("day [0-9]+", "[A-Z][a-z]+a\\b", "^B", "\\.$", "x*"):
            found = matches.expression(tokens, pattern, lambda: None, exact=True)
            expected = [
                (int(tokens.doc_bytes[doc]) + m.start(), int(tokens.doc_bytes[doc]) + m.end())
                for doc in range(tokens.n_docs)
                for m in re.finditer(pattern.encode(), tokens.document(doc).encode())
                if m.end() > m.start()
            ]
            assert list(zip(found.start.tolist(), found.stop.tolist(), strict=True)) == expected

    def test_of_many_matches_a_seeded_sample_is_looked_at_and_said_so(self, searcher: Searcher):
        cfg = SearchConfig(max_matches=50)
        once, again = searcher.search("e", cfg=cfg), searcher.search("e", cfg=cfg)
        pd.testing.assert_frame_equal(once, again)
        assert (once["n_judged"] <= 50).all()
        assert "a sample of 50" in once.attrs["note"]

    def test_no_match_goes_across_documents(self, wb: Workbench, searcher: Searcher):
        first, second = wb.index.tokens.document(0), wb.index.tokens.document(1)
        assert searcher.search(first[-8:] + second[:8]).empty
        assert searcher.search(first[-8:] + "(.|\n)*" + second[:8], cfg=SearchConfig(regex=True)).empty

    @pytest.mark.parametrize("query", ["zzz", "Ünïcode 👩‍👩‍👧", "�", "\x00", "%", "' OR 1=1 --"])
    def test_what_is_not_there_is_not_found(self, searcher: Searcher, query: str):
        for by in ("text", "token"):
            assert searcher.search(query, by).empty

    @pytest.mark.parametrize("query", ["", "\udcff", "a" * 2000])
    def test_a_query_that_is_none_is_refused(self, searcher: Searcher, query: str):
        with pytest.raises(UsageError):
            searcher.search(query)

    @pytest.mark.parametrize("pattern", ["(", "(?=a)", "\\1", "(a{1000}){1000}", "a" * 2000])
    def test_an_expression_that_cannot_be_is_refused(self, searcher: Searcher, pattern: str):
        with pytest.raises(UsageError, match="expression"):
            searcher.search(pattern, cfg=SearchConfig(regex=True))

    def test_an_expression_that_would_backtrack_for_ever_ends(self):
        tokens = made_up(["a" * 50_000])
        assert not len(matches.expression(tokens, "(a+)+b", matches.deadline(10.0)).start)

    def test_a_search_ends_at_its_deadline(self, wb: Workbench):
        with pytest.raises(UsageError, match="longer than 0 s"):
            matches.literal(wb.index.tokens.text, "a", matches.deadline(0.0))

    def test_settings_that_find_nothing_are_refused(self):
        for wrong in ({"n": 0}, {"max_matches": 0}, {"timeout_s": 0.0}, {"timeout_s": math.nan}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                SearchConfig(**wrong)

    def test_an_unknown_way_lists_the_known(self, searcher: Searcher):
        with pytest.raises(UsageError, match="text, token, explanation, meaning"):
            searcher.search("a", "colour")


def made_up(texts: list[str], cuts: Sequence[list[tuple[int, int]]] = ()) -> TokenMap:
    """Documents whose pieces have one token for each pair of bytes in `cuts`, with one of no text before them."""
    encoded = [text.encode() + SEPARATOR for text in texts]
    doc_bytes = np.cumsum([0, *map(len, encoded)])
    spans, has_text, first = [], [], []
    for doc, pieces in enumerate(cuts):
        base = int(doc_bytes[doc])
        first.append(len(spans))
        spans += [(base, base), *((a + base, b + base) for a, b in pieces)]
        has_text += [-1] + [0] * len(pieces)
    made = object.__new__(TokenMap)
    made.text, made.doc_bytes = np.frombuffer(b"".join(encoded), np.uint8), doc_bytes
    made.byte_start, made.byte_end = (np.array([span[i] for span in spans], np.int64) for i in (0, 1))
    made.char_start = made.token_ids = np.array(has_text, np.int32)
    made.piece_first = np.array(first, np.int64)
    return made


TEXTS = st.lists(st.text(st.sampled_from("abAB é☃😀\n"), min_size=1, max_size=30), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), texts=TEXTS)
def test_stretches_of_any_text_are_mapped_to_the_tokens_that_overlap_them(data: st.DataObject, texts: list[str]):
    cuts = []
    for text in texts:
        n = len(text.encode())
        spans = data.draw(st.lists(st.tuples(st.integers(0, n), st.integers(0, 5)), max_size=25))
        # Ascending as a tokenizer's mostly are, sharing bytes or leaving some out; sometimes the text is there twice.
        spans = [(a, min(a + length, n)) for a, length in sorted(spans)]
        cuts.append(spans * data.draw(st.integers(1, 2)))
    tokens = made_up(texts, cuts)
    points = st.integers(0, len(tokens.text) - 1)
    asked = sorted({tuple(sorted(p)) for p in data.draw(st.lists(st.tuples(points, points), max_size=6))})
    stretches = Stretches(*(np.array([s[i] for s in asked], np.int64).reshape(-1) for i in (0, 1)))
    found = TextRuns.of(tokens).tokens_of(stretches)
    for i, (start, stop) in enumerate(asked):
        own = found.place[found.which == i].tolist()
        assert len(own) == len(set(own))
        if start < stop:
            assert set(own) == places_by_hand(tokens, start, stop)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, query=st.text(st.sampled_from("abAB é☃\n"), min_size=1, max_size=4))
def test_a_literal_is_found_wherever_it_stands_and_nowhere_else(texts: list[str], query: str):
    tokens = made_up(texts)
    for exact in (True, False):
        found = matches.literal(tokens.text, query, lambda: None, exact=exact)
        flag = b"" if exact else b"(?i)"
        # Bytes patterns fold the case of ASCII only.
        expected = [m.span(1) for m in re.finditer(flag + b"(?=(" + re.escape(query.encode()) + b"))", tokens.text)]
        assert list(zip(found.start.tolist(), found.stop.tolist(), strict=True)) == expected


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, pattern=st.sampled_from(["a+", "[é☃]", ".", "b?", "(a|b)é*", "\\s", "A.", "^a", "b$"]))
def test_an_expression_is_found_where_re_finds_it(texts: list[str], pattern: str):
    tokens = made_up(texts)
    found = matches.expression(tokens, pattern, lambda: None, exact=True)
    read = [tokens.text[a:b].tobytes().decode() for a, b in zip(found.start, found.stop, strict=True)]
    ends = pattern.replace("$", "\\Z")  # in RE2 it is the text's end alone
    assert read == [m.group() for text in texts for m in re.finditer(ends, text) if m.group()]


class TestEnrichment:
    def test_many_of_many_outrank_one_of_one(self):
        found = enrichment(np.array([1, 40]), np.array([1, 41]), np.array([0.001, 0.001]), 1000)
        assert found.share[0] > found.share[1]
        assert found.bits[0] < found.bits[1]
        assert found.ci_low[0] < found.ci_low[1]

    def test_evidence_is_a_bound_on_the_p_value(self):
        hits, expected = np.arange(1, 51), np.full(50, 0.13)
        found = enrichment(hits, 50, expected, 1)
        above = hits > 50 * 0.13
        assert (found.p[above] <= 2 ** -found.bits[above] * (1 + 1e-9)).all()
        assert (found.bits[~above] == 0).all()
        exact = [sum(math.comb(50, k) * 0.13**k * 0.87 ** (50 - k) for k in range(h, 51)) for h in hits.tolist()]
        assert found.p == pytest.approx(exact)

    def test_evidence_does_not_underflow(self):
        found = enrichment(np.array([10_000, 9_000]), 10_000, np.array([1e-6, 1e-6]), 65_536)
        assert found.bits[0] > found.bits[1] > 1000

    def test_what_is_expected_counts_every_token_of_a_match(self):
        assert expected_share(np.array([0.1, 1.0, 0.0]), np.array([1, 1, 3])) == pytest.approx(
            [(0.1 + 0.1 + 1 - 0.9**3) / 3, 1, 0]
        )


def test_tokens_are_offered_with_and_without_a_space(wb: Workbench, searcher: Searcher):
    found = searcher.search("a", "token", SearchConfig(n=500))
    rows = wb.index.sql("SELECT * FROM ngrams WHERE text = 'a' OR text = ' a'")
    assert set(found["token"]) == {"a", " a"}
    assert len(found) == len(rows)
    assert found["bits"].is_monotonic_decreasing
    assert (found["fires"] == found["n_fired"] / found["n_seen"]).all()


class TestByExplanation:
    def test_scores_are_those_of_the_formula(self):
        texts = Texts(["a cat sat", "the cat, the CAT and a dog", "dogs"])
        mean = (3 + 7 + 1) / 3
        idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
        expected = [
            idf * n * (K1 + 1) / (n + K1 * (1 - B + B * length / mean)) for n, length in ((1, 3), (2, 7))
        ]  # fmt: skip
        scores = texts.scores(terms("Cat"))
        assert [scores[0], scores[1]] == pytest.approx(expected)
        assert 2 not in scores

    @pytest.mark.parametrize(
        ("query", "found"),
        [("cat dog", {1}), ('"cat sat"', {0}), ('"sat cat"', set()), ("dog*", {1, 2}), ('"a dog', {1}), ("a-dog", {1})],
    )
    def test_every_word_and_phrase_must_be_there(self, query: str, found: set[int]):
        texts = Texts(["a cat sat", "the cat, the CAT and a dog", "dogs"])
        assert set(texts.scores(terms(query))) == found

    @pytest.mark.parametrize("query", ['""', "*", "…", '"'])
    def test_a_query_without_a_word_is_refused(self, searcher: Searcher, query: str):
        with pytest.raises(UsageError, match="no word"):
            searcher.search(query, "explanation")

    def test_explanations_come_with_their_latents(self, wb: Workbench, searcher: Searcher):
        found = searcher.search("FIRES on", "explanation")
        assert len(found) == len(wb.index.sql("SELECT * FROM explanations"))
        assert found["relevance"].is_monotonic_decreasing


class Counting:
    """An embedder that counts the texts it was given."""

    name = "counting"

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, texts: Any) -> np.ndarray:
        self.n += len(texts)
        return HashedEmbedder()(texts)


class TestByMeaning:
    def test_only_new_texts_are_embedded(self, tmp_path: Path):
        embed, files = Counting(), EmbeddingFiles(tmp_path, "counting")
        first = files.vectors(["a", "b", "a"], embed)
        again = files.vectors(["b", "c", "a"], embed)
        assert embed.n == 3
        assert np.array_equal(first[[1, 0]], again[[0, 2]])
        assert np.array_equal(again, HashedEmbedder()(["b", "c", "a"]))

    def test_a_damaged_file_is_made_again(self, tmp_path: Path):
        embed, files = Counting(), EmbeddingFiles(tmp_path, "counting")
        expected = files.vectors(["a", "b"], embed)
        (path,) = tmp_path.rglob("*.npy")
        for damage in (b"", path.read_bytes()[:-10], b"\x93NUMPY", b"junk" * 50):
            path.write_bytes(damage)
            assert np.array_equal(EmbeddingFiles(tmp_path, "counting").vectors(["a", "b"], embed), expected)

    def test_the_nearest_is_first_and_the_run_stays_whole(self, tiny_root: Path, tmp_path: Path):
        root = tmp_path / "runs"
        shutil.copytree(tiny_root, root)
        wb = Workbench.open(root)
        text = wb.index.sql("SELECT text FROM explanations ORDER BY latent LIMIT 1 OFFSET 2")["text"][0]
        found = Searcher(wb.index).search(text, "meaning", SearchConfig(embedder="hashed"))
        assert found["explanation"][0] == text
        assert found["similarity"][0] == pytest.approx(1)
        assert list((wb.run.folder / EMBEDDINGS).rglob("*.npy"))
        assert main(["verify", wb.run.id, "--root", str(root)]) == 0
        assert not any(EMBEDDINGS in name for name in wb.run._file_names())

    def test_a_mended_index_does_not_answer_for_what_is_made_again(self, tiny_root: Path, tmp_path: Path):
        root = tmp_path / "runs"
        shutil.copytree(tiny_root, root)
        wb = Workbench.open(root)
        Searcher(wb.index).search("a", "meaning", SearchConfig(embedder="hashed"))
        (wb.run.folder / "parts" / "neighbours.parquet").unlink()
        assert repair_index(wb.run) == ["parts/neighbours.parquet"]
        shutil.rmtree(wb.run.folder / EMBEDDINGS)
        assert main(["explain", "--latents", "1", "2", "--root", str(root)]) == 0  # publishes another version
        assert main(["verify", wb.run.id, "--root", str(root)]) == 0

    def test_an_unknown_embedder_lists_the_known(self, searcher: Searcher):
        with pytest.raises(UsageError, match="minilm, hashed"):
            searcher.search("a", "meaning", SearchConfig(embedder="word2vec"))


def test_damaged_codes_are_named(wb: Workbench, tmp_path: Path):
    path = codes_path(wb.run.folder, 0)
    whole = path.read_bytes()
    for damage in (b"", whole[:5], whole[: len(whole) // 2], b"\xff" * 100, whole[:8] + b"x" * (len(whole) - 8)):
        (tmp_path / "codes.safetensors").write_bytes(damage)
        with pytest.raises(UsageError, match="damaged"):
            map_codes(tmp_path / "codes.safetensors")


class TestCommand:
    @pytest.mark.parametrize("form", ["table", "csv", "json"])
    def test_what_is_found_is_printed(self, tiny_root: Path, capsys: pytest.CaptureFixture[str], form: str):
        assert main(["search", "harbour", "--root", str(tiny_root), "--n", "3", "--format", form]) == 0
        printed = capsys.readouterr()
        assert printed.out.count("«harbour»") == 3
        assert "matches" in printed.err

    def test_a_wrong_query_is_one_line(self, tiny_root: Path, capsys: pytest.CaptureFixture[str]):
        assert main(["search", "(", "--regex", "--root", str(tiny_root)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
