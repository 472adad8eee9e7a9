"""Text in: what a reference names, in which order, mixed how, told apart by what."""

import gzip
import hashlib
import json
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.sources import SHUFFLE_CHARS, SHUFFLE_DOCUMENTS, in_memory, length, shuffled
from activations.text import Document, Message, Source, TextConfig, mixed, read_sources, sources_hash
from store.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONOSEM_CACHE", str(tmp_path_factory.mktemp("cache")))


def source(*texts: str, name: str = "s", share: float = 1.0) -> Source:
    (made,) = in_memory([(name, share, [Document(name, str(i), text) for i, text in enumerate(texts)])])
    return made


def read(corpus: Path | str, seed: int = 0, **fields: object) -> list[Document]:
    (only,) = read_sources(TextConfig(corpus=str(corpus), **fields))  # type: ignore[arg-type]
    return list(only.open(seed))


def texts(corpus: Path | str, **fields: object) -> list[str]:
    return sorted(document.text for document in read(corpus, **fields))


def digest(titles: list[str]) -> str:
    return hashlib.sha256("\n".join(titles).encode()).hexdigest()[:16]


def test_a_folder_is_read_below_itself_without_hidden_files_and_other_kinds(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.txt").write_text("one\r\ntwo")
    (tmp_path / "in/b.jsonl").write_text('{"text": "three", "title": "T"}\n\n{"text": "four\u2028five"}\n')
    (tmp_path / ".git/c.txt").write_text("hidden")
    (tmp_path / "d.pdf").write_text("%PDF")
    found = {(document.source, document.title, document.text) for document in read(tmp_path)}
    assert found == {
        ("a.txt", "a", "one\ntwo"),
        ("in/b.jsonl", "T", "three"),
        ("in/b.jsonl", "line 3", "four\u2028five"),
    }


def test_a_glob_names_files_and_a_real_name_is_no_glob(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.md", "in/c.txt", "[x].txt"):
        (tmp_path / name).write_text(name)
    assert texts(tmp_path / "*.txt") == ["[x].txt", "a.txt"]
    assert texts(f"{tmp_path}/**/*.txt") == ["[x].txt", "a.txt", "in/c.txt"]
    assert texts(tmp_path / "[x].txt") == ["[x].txt"]


def test_urls_are_read_through_fsspec(tmp_path: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/a.jsonl.gz", gzip.compress(b'{"text": "one"}\n'))
    memory.pipe("/corpus/in/b.txt", b"two")
    memory.pipe("/corpus/in/c.bin", b"\0")
    assert texts("memory://corpus") == ["one", "two"]
    assert texts("memory://corpus/in/b.txt") == ["two"]
    assert texts("memory://corpus/*.gz") == ["one"]
    (tmp_path / "a.txt").write_text("three")
    assert texts(f"file://{tmp_path}/a.txt") == ["three"]


def test_a_remote_text_has_a_new_fingerprint_when_it_is_written_anew():
    memory = fsspec.filesystem("memory")

    def fingerprint() -> str:
        return read_sources(TextConfig(corpus="memory://anew.txt"))[0].fingerprint

    memory.pipe("/anew.txt", b"one")
    first = fingerprint()
    assert fingerprint() == first
    memory.pipe("/anew.txt", b"two")
    assert fingerprint() != first


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("nope.txt", "does not exist: give a file.*english, stories"),
        ("x" * 5000, "does not exist"),
        ("~nobody-here/a.txt", "does not exist"),
        ("*.nope", "does not exist"),
        ("memory://nope.txt", "does not exist"),
        ("memory://nope/*.txt", "has no .csv"),
        ("nope://a.txt", "Protocol not known"),
        ("wheel:nope", "no asset 'wheel:nope'"),
        ("dataset:nope", "no folder and no ORG/NAME"),
        ("dataset:org/name", "could not reach the hub.*unset HF_HUB_OFFLINE"),
    ],
)
def test_what_is_not_there_is_one_clear_line(corpus: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        read_sources(TextConfig(corpus=corpus))
    assert "\n" not in str(caught.value)


def test_a_scheme_without_its_library_names_the_package(monkeypatch: pytest.MonkeyPatch):
    fsspec.register_implementation("lacking", "lacking_package.FS", errtxt="Install lacking_package", clobber=True)
    with pytest.raises(UsageError, match=r"Install lacking_package.*pip install lacking_package"):
        read_sources(TextConfig(corpus="lacking://bucket/a.txt"))


def test_an_empty_folder_says_what_can_be_read(tmp_path: Path):
    with pytest.raises(UsageError, match=r"has no \.csv"):
        read_sources(TextConfig(corpus=str(tmp_path)))


def test_a_folder_without_any_text_is_refused_and_one_with_some_is_not(tmp_path: Path):
    (tmp_path / "a.txt").write_text(" \n")
    (tmp_path / "b.jsonl").write_text('{"text": null}\n{"text": "\\t"}\n')
    with pytest.raises(UsageError, match="there is no text in"):
        read_sources(TextConfig(corpus=str(tmp_path)))
    (tmp_path / "c.txt").write_text("x")
    assert texts(tmp_path) == ["x"]


def test_a_stream_takes_a_fraction_of_its_files_memory(tmp_path: Path):
    path = tmp_path / "big.jsonl"
    with path.open("w") as file:
        for number in range(3000):
            file.write(json.dumps({"text": f"{number} " + "word " * 2000}) + "\n")
    assert path.stat().st_size > 30_000_000
    (big,) = read_sources(TextConfig(corpus=str(path)))
    tracemalloc.start()
    assert sum(1 for _ in big.open(0)) == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15_000_000


def test_an_order_is_the_seeds_and_may_be_had_again(tmp_path: Path):
    for name in "abcd":
        lines = [json.dumps({"text": f"{name}{number}"}) for number in range(600)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (folder,) = read_sources(TextConfig(corpus=str(tmp_path)))
    first, again, other = list(folder.open(0)), list(folder.open(0)), list(folder.open(1))
    assert first == again
    assert first != other
    assert Counter(first) == Counter(other)
    assert len(set(first)) == 2400


def test_the_buffer_moves_documents_forward_by_no_more_than_its_size():
    documents = [Document("s", str(number), "x") for number in range(3000)]
    places = [int(document.title) for document in shuffled(documents, 0)]
    assert sorted(places) == list(range(3000))
    assert all(place <= position + SHUFFLE_DOCUMENTS for position, place in enumerate(places))
    assert sum(place >= SHUFFLE_DOCUMENTS for place in places[:1000]) > 300


def test_the_buffer_holds_fewer_of_longer_documents():
    held = 0

    def opened():
        nonlocal held
        for number in range(6):
            held += 1
            yield Document("s", str(number), "x" * (SHUFFLE_CHARS // 2 + 1))

    most = 0
    for _ in shuffled(opened(), 0):
        most = max(most, held)
        held -= 1
    assert most == 2


def test_a_short_stream_is_shuffled_as_if_it_were_in_memory(tmp_path: Path):
    lines = [json.dumps({"text": f"text {number}", "title": str(number)}) for number in range(500)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    whole = source(*[f"text {number}" for number in range(500)])
    assert [d.title for d in read(tmp_path / "a.jsonl", seed=3)] == [d.title for d in whole.open(3)]


def test_mixing_keeps_every_sources_share_and_takes_each_document_once():
    sources = in_memory(
        [
            (name, share, [Document(name, str(number), text) for number in range(80)])
            for name, share, text in (("a", 0.75, "x" * 10), ("b", 0.25, "y" * 5))
        ]
    )
    order = list(mixed(sources, 0, length))
    assert len(order) == len({id(document) for document in order}) == 160
    sizes = [sum(length(document) for document in order[:60] if document.source == name) for name in "ab"]
    assert sizes[0] / sum(sizes) == pytest.approx(0.75, abs=0.02)
    assert [document.title for document in mixed(sources, 1, length)] != [document.title for document in order]


def test_mixing_pulls_one_document_at_a_time():
    pulled = Counter()

    def endless(name: str):
        def opened(seed: int):
            while True:
                pulled[name] += 1
                yield Document(name, str(seed), "x")

        return Source(name, 0.5, opened, name)

    taken = [document for document, _ in zip(mixed([endless("a"), endless("b")], 0, length), range(10), strict=False)]
    assert Counter(document.source for document in taken) == {"a": 5, "b": 5}
    assert pulled.total() <= 11


def test_the_order_of_the_built_in_stories_never_changes():
    # As recorded runs have it.
    order = list(mixed(read_sources(TextConfig(corpus="stories")), 0, length))
    assert len(order) == 64
    assert digest([document.title for document in order[:50]]) == "7228c8eecd388f2a"


@pytest.mark.slow
def test_the_order_of_the_english_corpus_never_changes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MONOSEM_CACHE")
    order = list(mixed(read_sources(TextConfig(corpus="english")), 0, length))
    assert len(order) == 14277
    assert digest([document.title for document in order[:50]]) == "11e63bbbe970ac7f"
    assert digest([f"{d.source}|{d.title}|{d.text}" for d in order]) == "82581339ef409bba"


def test_the_fingerprint_is_the_contents_wherever_the_file_is(tmp_path: Path):
    for name, text in (("one", "x"), ("two", "x"), ("three", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text)
    one, two, three = (
        read_sources(TextConfig(corpus=str(tmp_path / name / "a.txt"))) for name in ("one", "two", "three")
    )
    assert sources_hash(one) == sources_hash(two)
    assert sources_hash(one) != sources_hash(three)


def test_the_hash_of_texts_does_not_collide_by_joining():
    assert sources_hash([source("ab", "c")]) != sources_hash([source("a", "bc")])
    assert sources_hash([source("a", share=0.5)]) != sources_hash([source("a")])


def test_surrogates_in_texts_and_names_can_be_hashed_and_read(tmp_path: Path):
    path = tmp_path / os.fsdecode(b"\xff.jsonl")
    path.write_text(json.dumps({"text": "\ud800", "more": "x" * (1 << 20)}))
    assert read(path)[0].text == "\ud800"
    sources_hash([*read_sources(TextConfig(corpus=str(path))), source("\udfff")])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=5), max_size=12))
def test_documents_without_text_are_left_out(some: list[str]):
    documents = [Document("s", "t", text) for text in some]
    documents += [Document("s", "t", messages=(Message("user", text),)) for text in some]
    kept = [document for made in in_memory([("s", 1.0, documents)]) for document in made.open(0)]
    assert len(kept) == 2 * sum(bool(text.strip()) for text in some)


@pytest.mark.parametrize(
    "fields",
    [
        {"n_tokens": 0},
        {"heldout": 0.0},
        {"heldout": 1.0},
        {"max_doc_tokens": 0},
        {"dataset_split": ""},
        {"corpus": " "},
        {"text_column": "", "messages_column": ""},
        {"dataset_name": "en"},
        {"dataset_split": "test"},
        {"dataset_revision": "main"},
    ],
)
def test_settings_out_of_range_name_the_field_and_the_value(fields: dict):
    with pytest.raises(UsageError) as caught:
        TextConfig(**fields)
    assert all(name in str(caught.value) and str(value) in str(caught.value) for name, value in fields.items())


@pytest.mark.parametrize("field", ["mode", "overlong", "bos", "chat", "documents", "encoding_errors"])
def test_a_choice_that_is_not_known_names_those_that_are(field: str):
    cfg = TextConfig()
    # The shape checker of the tests would refuse it first.
    object.__setattr__(cfg, field, "page")
    with pytest.raises(
        UsageError, match=f"{field} 'page' is not known: choose one of .*{getattr(TextConfig(), field)}"
    ):
        cfg.__post_init__()


def test_whole_documents_are_asked_for_with_none():
    assert TextConfig(max_doc_tokens=None).max_doc_tokens is None
