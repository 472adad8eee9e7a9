"""Text in: files, errors, mixing, cutting into sequences, the held-out split."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.sequences import MIN_TAIL_TOKENS, batches, tokenize
from activations.text import Document, Source, TextConfig, mixed, read_sources, sources_hash
from activations.tokenizer import ByteTokenizer
from store.errors import UsageError

TOKENIZER = ByteTokenizer()


def source(*texts: str, name: str = "s", share: float = 1.0) -> Source:
    return Source(name, share, tuple(Document(name, str(i), text) for i, text in enumerate(texts)))


def test_text_files_json_lines_and_folders_are_read(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\r\ntwo")
    (tmp_path / "b.jsonl").write_text('{"text": "three", "title": "T"}\n\n{"text": "four\u2028five"}\n')
    assert [d.text for d in read_sources(str(tmp_path / "a.txt"))[0].documents] == ["one\ntwo"]
    assert [d.title for d in read_sources(str(tmp_path / "b.jsonl"))[0].documents] == ["T", "line 3"]
    assert len(read_sources(str(tmp_path))[0].documents) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "no text in"),
        ("a.txt", b" \n", "no text in"),
        ("a.txt", b"ab\xff", "not UTF-8 at byte 2"),
        ("a.pdf", b"x", "is not one of .txt"),
        ("a.jsonl", b"{", "a.jsonl:1 is not JSON"),
        ("a.jsonl", b'{"body": 1}', 'has no string "text"'),
        ("a.jsonl", b"[]", 'has no string "text"'),
    ],
)
def test_bad_text_is_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_sources(str(tmp_path / name))


def test_missing_text_lists_what_there_is(tmp_path: Path):
    with pytest.raises(UsageError, match="english, stories"):
        read_sources(str(tmp_path / "nope.txt"))
    with pytest.raises(UsageError, match=r"has no \.txt"):
        read_sources(str(tmp_path))


def test_mixing_keeps_every_sources_share_and_takes_each_document_once():
    sources = [source(*["x" * 10] * 80, name="a", share=0.75), source(*["y" * 5] * 80, name="b", share=0.25)]
    order = list(mixed(sources, 0, lambda document: len(document.text)))
    assert len(order) == 160
    assert len({id(document) for document in order}) == 160
    half = order[:60]
    sizes = [sum(len(d.text) for d in half if d.source == name) for name in "ab"]
    assert sizes[0] / sum(sizes) == pytest.approx(0.75, abs=0.02)
    assert [d.title for d in mixed(sources, 1, lambda d: len(d.text))] != [d.title for d in order]


def test_the_hash_of_texts_does_not_collide_by_joining():
    assert sources_hash([source("ab", "c")]) != sources_hash([source("a", "bc")])


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(min_size=1, max_size=200), min_size=2, max_size=8, unique=True), n_ctx=st.integers(8, 40))
def test_sequences_are_consecutive_pieces_of_one_document(texts: list[str], n_ctx: int):
    cfg = TextConfig(n_tokens=10**6)
    text = tokenize(TOKENIZER, [source(*texts)], cfg, n_ctx)
    for doc_id, document in enumerate(text.documents):
        mine = [s for s in text.sequences if s.doc_id == doc_id]
        assert all(s.ids[0] == TOKENIZER.bos_id and s.ids.count(TOKENIZER.bos_id) == 1 for s in mine)
        assert all(len(s) <= n_ctx for s in mine)
        joined = [token_id for s in mine for token_id in s.ids[1:]]
        whole = list(document.text.encode("utf-8", "replace"))
        assert joined == whole[: len(joined)]
        assert len(whole) - len(joined) < MIN_TAIL_TOKENS
    assert [s.seq for s in text.sequences] == list(range(len(text.sequences)))


def test_the_same_text_is_never_on_both_sides_of_the_split():
    texts = [f"document number {i}" for i in range(30)]
    text = tokenize(TOKENIZER, [source(*texts, *texts)], TextConfig(heldout=0.3), 64)
    held = {d.text for d, h in zip(text.documents, text.heldout, strict=True) if h}
    assert held
    assert held.isdisjoint(d.text for d, h in zip(text.documents, text.heldout, strict=True) if not h)


def test_long_documents_are_cut_and_keep_the_text_that_was_taken():
    text = tokenize(TOKENIZER, [source("a" * 500, "b" * 500)], TextConfig(max_doc_tokens=100), 64)
    assert [len(d.text) for d in text.documents] == [100, 100]


def test_one_document_cannot_be_split():
    with pytest.raises(UsageError, match="at least 2"):
        tokenize(TOKENIZER, [source("only one")], TextConfig(), 64)


@pytest.mark.parametrize("settings", [{"n_tokens": 0}, {"heldout": 0.0}, {"heldout": 1.0}])
def test_settings_out_of_range_name_the_value(settings: dict):
    with pytest.raises(UsageError, match=str(next(iter(settings.values())))):
        TextConfig(**settings)


def test_batches_hold_every_sequence_once_and_mask_exactly_the_padding():
    text = tokenize(TOKENIZER, [source(*("x" * n for n in range(20, 60)))], TextConfig(), 50)
    seen = []
    for batch in batches(text.sequences, 7):
        seen += [s.seq for s in batch.sequences]
        assert batch.mask.sum(1).tolist() == [len(s) for s in batch.sequences]
        for row, sequence in zip(batch.tokens, batch.sequences, strict=True):
            assert tuple(row[: len(sequence)].tolist()) == sequence.ids
    assert sorted(seen) == [s.seq for s in text.sequences]


def test_byte_tokenizer_spans_cover_their_characters():
    encoding = TOKENIZER.encode("aé🙂")
    assert encoding.ids == list("aé🙂".encode())
    assert [("aé🙂")[s:e] for s, e in zip(encoding.char_start, encoding.char_end, strict=True)] == [
        "a",
        *"éé",
        *"🙂" * 4,
    ]
    assert TOKENIZER.decode(TOKENIZER.with_bos(encoding.ids)) == "aé🙂"
