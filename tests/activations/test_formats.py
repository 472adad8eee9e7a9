"""Formats: every kind of file gives the same texts; damage is one line that says where it is."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activations.formats import MAX_FIELD_CHARS, READERS
from activations.text import Document, Message, TextConfig, read_sources
from activations.text_files import DECOMPRESSORS
from store.errors import UsageError

TEXTS = ["one", 'two, "quoted"\nand a tab\there', "three\0\u2028é🙂", "\ufefffour"]
UTF8 = st.text(st.characters(codec="utf-8"), max_size=30)
anything = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONOSEM_CACHE", str(tmp_path_factory.mktemp("cache")))


def read(path: Path | str, **fields: object) -> list[Document]:
    """In the order of the file."""
    (only,) = read_sources(TextConfig(corpus=str(path), **fields))  # type: ignore[arg-type]
    return sorted(only.open(0), key=lambda document: int((re.findall(r"\d+", document.title) or [0])[0]))


def texts(path: Path, **fields: object) -> list[str]:
    return [document.text for document in read(path, **fields)]


def refused(path: Path | str, **fields: object) -> str:
    with pytest.raises(UsageError) as caught:
        read(path, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jsonl(rows: list) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[list[str]], delimiter: str, more_header: int = 0) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["text"], *[["string"]] * more_header, *rows])
    return file.getvalue().encode()


def parquet(columns: dict) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


WRITERS: dict[str, Callable[[list[str]], bytes]] = {
    ".csv": lambda some: table([[text] for text in some], ","),
    ".jsonl": lambda some: jsonl([{"text": text} for text in some]),
    ".parquet": lambda some: parquet({"n": range(len(some)), "text": some}),
    ".tab": lambda some: table([[text] for text in some], "\t", more_header=2),
    ".tsv": lambda some: table([[text] for text in some], "\t"),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".bz2": bz2.compress,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def test_every_reader_and_decompressor_is_tried_here():
    assert {*WRITERS, ".txt", ".md"} == set(READERS)
    assert set(PACKERS) == set(DECOMPRESSORS)


@pytest.mark.parametrize("packed", ["", *PACKERS])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_texts(tmp_path: Path, suffix: str, packed: str):
    path = tmp_path / f"a{suffix.upper()}{packed}"
    path.write_bytes(PACKERS.get(packed, bytes)(WRITERS[suffix](TEXTS)))
    assert texts(path) == TEXTS
    assert {document.source for document in read(path)} == {path.name}


@pytest.mark.parametrize("suffix", WRITERS)
@anything
@given(some=st.lists(UTF8.filter(str.strip), min_size=1, max_size=8))
def test_what_is_written_is_read(tmp_path: Path, suffix: str, some: list[str]):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(WRITERS[suffix](some))
    assert texts(path) == some


@anything
@given(text=UTF8.filter(str.strip))
def test_a_text_is_its_file_its_lines_or_its_paragraphs(tmp_path: Path, text: str):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    whole = path.read_text("utf-8-sig")
    assert texts(path) == [whole] or not whole.strip()
    if "\r" not in text:
        lines = whole.split("\n")
        assert texts(path, documents="line") == [line for line in lines if line.strip()]
        blocks, joined = [], "\n".join("" if line.isspace() else line for line in lines)
        blocks = [block.strip("\n") for block in re.split(r"\n(?:\n)+", joined)]
        assert texts(path, documents="paragraph") == [block for block in blocks if block.strip()]


def test_windows_line_ends_and_a_byte_order_mark_are_no_text(tmp_path: Path):
    for name in ("a.txt", "a.jsonl", "a.csv"):
        body = {"a.txt": b"x\r\ny\r\n", "a.jsonl": b'{"text": "x\\ny"}\r\n', "a.csv": b'text\r\n"x\ny"\r\n'}[name]
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + body)
    assert texts(tmp_path / "a.txt") == ["x\ny\n"]
    assert texts(tmp_path / "a.txt", documents="line") == ["x", "y"]
    assert texts(tmp_path / "a.txt", documents="paragraph") == ["x\ny"]
    assert texts(tmp_path / "a.jsonl") == texts(tmp_path / "a.csv") == ["x\ny"]


@pytest.mark.parametrize(
    ("name", "data", "byte"),
    [
        ("a.txt", b"ab\xff", 2),
        ("a.txt", b"\xef\xbb\xbfab\xff", 5),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": "\xe9x"}\n', 25),
        ("a.csv", b"text\n\xffx\n", 5),
        ("a.tsv", b"\xef\xbb\xbftext\n\n\xc3x\n", 9),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_bytes_that_are_not_utf8_are_named_by_their_place(
    tmp_path: Path, name: str, data: bytes, byte: int, packed: str
):
    path = tmp_path / (name + packed)
    path.write_bytes(PACKERS.get(packed, bytes)(data))
    message = refused(path)
    assert f"{path} is not UTF-8 at byte {byte}:" in message
    assert "--encoding-errors replace or ignore" in message
    assert any("\ufffd" in text for text in texts(path, encoding_errors="replace"))
    assert "\ufffd" not in "".join(texts(path, encoding_errors="ignore"))


def test_parquet_that_is_not_utf8_names_the_row(tmp_path: Path):
    raw = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xfe\xfe")]
    )
    (tmp_path / "a.parquet").write_bytes(parquet({"text": raw}))
    assert 'a.parquet row 1: "text" is not UTF-8 at its byte 0' in refused(tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", encoding_errors="replace") == ["ok", "\ufffd\ufffd"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "there is no text in"),
        ("a.txt", b" \n\xc2\xa0", "there is no text in"),
        ("a.jsonl", b"\xef\xbb\xbf", "there is no text in"),
        ("a.csv", b"", "there is no text in"),
        ("a.csv", b"text\n", "there is no text in"),
        ("a.parquet", parquet({"text": pa.array([], pa.string())}), "there is no text in"),
        ("a.pdf", b"x", "is not one of .csv"),
        ("a.gz", b"x", "is not one of .csv"),
        ("a", b"x", "is not one of .csv"),
        ("a.jsonl", b'{"text": "x"}\n\n{', "a.jsonl:3 is not JSON"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1 is not JSON"),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "a.jsonl:1 is not JSON"),
        ("a.jsonl", b"[]", 'a.jsonl:1 is list []: every line needs an object such as {"text'),
        (
            "a.jsonl",
            jsonl([{"body": 1, "x": 2}]),
            "has no column text or messages or conversations, only body, x: name",
        ),
        ("a.jsonl", jsonl([{"body": 1}]), "--text-column or --messages-column"),
        ("a.jsonl", jsonl([{"text": "x"}, {"text": 5}]), 'a.jsonl:2: "text" is int 5, not a string'),
        ("a.jsonl", jsonl([{"text": 0}]), "is int 0, not a string"),
        ("a.jsonl", jsonl([{"messages": "hi"}]), "not a list of turns"),
        (
            "a.jsonl",
            jsonl([{"messages": [{"role": "user"}]}]),
            "turn 1 is dict {'role': 'user'}: every turn needs role",
        ),
        ("a.jsonl", jsonl([{"messages": [{"from": "martian", "value": "x"}]}]), "is from 'martian': mend it to one of"),
        ("a.jsonl", jsonl([{"messages": [{"role": "user", "content": 5}]}]), "is int 5, not a string"),
        ("a.csv", b"body\nx\n", "a.csv:1 has no column text"),
        ("a.csv", b"text,n\nhello, world,1\n", "a.csv:2 has 3 fields, the header 2"),
        ("a.csv", b'text\nx\n"open\nnever closed\n', "a.csv:3 is not a row (unexpected end of data)"),
        ("a.csv", b'text\n"a"b\n', "a.csv:2 is not a row"),
        ("a.csv", b'text\n"' + b"x" * MAX_FIELD_CHARS + b'y"\n', "a.csv:2 is not a row (field larger than"),
        ("a.csv", b"text\rx\r", "a.csv:1 is not a row"),
        ("a.parquet", b"PAR1 but not really", "cannot be read as Parquet"),
        ("a.parquet", b"", "cannot be read as Parquet"),
        ("a.parquet", parquet({"text": [1, 2]}), 'row 0: "text" is int 1, not a string'),
        ("a.parquet", parquet({"body": ["x"]}), "has no column text"),
    ],
)
def test_bad_text_is_one_clear_line(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    assert message in refused(tmp_path / name)


@pytest.mark.parametrize("packed", PACKERS)
def test_damaged_compression_is_one_clear_line(tmp_path: Path, packed: str):
    path = tmp_path / f"a.jsonl{packed}"
    whole = PACKERS[packed](jsonl([{"text": f"{number * 7919:x}"} for number in range(5000)]))
    for damaged in (whole[:-1000], b"not packed at all" * 9):
        path.write_bytes(damaged)
        assert f"is damaged, cut off, or not a {packed} file" in refused(path)


def test_a_parquet_file_damaged_inside_is_one_clear_line(tmp_path: Path):
    data = bytearray(parquet({"text": ["some text"] * 50}))
    data[20:50] = b"\xff" * 30
    (tmp_path / "a.parquet").write_bytes(data)
    assert "cannot be read as Parquet" in refused(tmp_path / "a.parquet")


def test_a_name_that_cannot_be_opened_is_one_clear_line(tmp_path: Path):
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "b.txt").symlink_to(tmp_path / "b.txt")
    assert "has no .csv" in refused(tmp_path / "a.txt")
    assert "does not exist" in refused(tmp_path / "b.txt")


CHAT = (Message("system", "be kind"), Message("user", "q"), Message("assistant", "a"))
OPENAI = [{"role": message.role, "content": message.content} for message in CHAT]
SHAREGPT = [{"from": speaker, "value": m.content} for speaker, m in zip(("system", "human", "gpt"), CHAT, strict=True)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("column", "turns", "fields"),
    [
        ("messages", OPENAI, {}),
        ("conversations", SHAREGPT, {}),
        ("conversations", OPENAI, {}),
        ("messages", SHAREGPT, {}),
        ("chat", OPENAI, {"messages_column": "chat"}),
    ],
)
def test_chats_are_read_as_turns(tmp_path: Path, suffix: str, column: str, turns: list, fields: dict):
    row = {column: turns, "title": "T"}
    data = jsonl([row]) if suffix == ".jsonl" else parquet({name: [value] for name, value in row.items()})
    (tmp_path / f"a{suffix}").write_bytes(data)
    assert read(tmp_path / f"a{suffix}", **fields) == [Document(f"a{suffix}", "T", messages=CHAT)]


def test_text_comes_before_messages_and_nulls_are_no_text(tmp_path: Path):
    rows = [
        {"text": "t", "messages": OPENAI},
        {"text": None, "messages": OPENAI},
        {"text": None, "messages": None},
        {"text": "", "messages": []},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]},
    ]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    assert [document.text or [m.content for m in document.messages] for document in read(tmp_path / "a.jsonl")] == [
        "t",
        ["be kind", "q", "a"],
        ["ab"],
        ["x", ""],
    ]
    assert len(read(tmp_path / "a.jsonl", text_column="")) == 4
    assert read(tmp_path / "a.jsonl", text_column="")[0].messages == CHAT


def test_rows_say_what_they_are_called(tmp_path: Path):
    rows = {"text": ["x", "y"], "source": ["web", None], "title": [None, "T"]}
    (tmp_path / "a.parquet").write_bytes(parquet(rows))
    (tmp_path / "a.jsonl").write_bytes(
        jsonl([dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)])
    )
    named = {(document.source, document.title) for document in read(tmp_path / "a.parquet")}
    assert named == {("web", "row 0"), ("a.parquet", "T")}
    named = {(document.source, document.title) for document in read(tmp_path / "a.jsonl")}
    assert named == {("web", "line 1"), ("a.jsonl", "T")}


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path: Path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{number} " + "word " * 600 for number in range(5000)]}), file, compression=None)
    assert file.stat().st_size > 1_000_000
    (big,) = read_sources(TextConfig(corpus=str(file)))
    before, most = pa.total_allocated_bytes(), 0
    for _ in big.open(0):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 8_000_000


def test_a_very_long_line_is_read(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"x" * 20_000_000 + b'"}\n{"text": "y"}\n')
    assert [len(text) for text in texts(tmp_path / "a.jsonl")] == [20_000_000, 1]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The library, keeping what it keeps in a folder of this test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return datasets


def test_a_folder_of_data_files_is_a_dataset(tmp_path: Path, hub):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(jsonl([{"text": f"t{number}"} for number in range(5)]))
    (folder / "test.jsonl").write_bytes(jsonl([{"text": "held"}]))
    corpus = f"dataset:{folder}"
    assert texts(corpus) == [f"t{number}" for number in range(5)]
    assert texts(corpus, dataset_split="test") == ["held"]
    assert "Available splits: ['train', 'test']" in refused(corpus, dataset_split="nope")
    assert "BuilderConfig 'nope' not found" in refused(corpus, dataset_name="nope")
    assert "has no column body" in refused(corpus, text_column="body")
    assert "is for the hub" in refused(corpus, dataset_revision="main")
    one, other = (
        read_sources(TextConfig(corpus=corpus, dataset_split=split))[0].fingerprint for split in ("train", "test")
    )
    assert one != other


def test_datasets_saved_to_disk_are_read(tmp_path: Path, hub):
    saved = hub.Dataset.from_dict({"text": ["a", "", "b"]})
    saved.save_to_disk(tmp_path / "one")
    hub.DatasetDict({"train": saved, "dev": hub.Dataset.from_dict({"text": ["d"]})}).save_to_disk(tmp_path / "two")
    hub.Dataset.from_dict({"conversations": [SHAREGPT]}).save_to_disk(tmp_path / "three")
    assert texts(f"dataset:{tmp_path}/one") == ["a", "b"]
    assert texts(f"dataset:{tmp_path}/two", dataset_split="dev") == ["d"]
    assert "only train, dev" in refused(f"dataset:{tmp_path}/two", dataset_split="test")
    assert read(f"dataset:{tmp_path}/three") == [Document("three", "row 0", messages=CHAT)]


def test_no_code_of_a_dataset_is_run(tmp_path: Path, hub):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "scripts are no longer supported" in refused(f"dataset:{folder}")
    assert not (tmp_path / "ran").exists()


def test_damaged_datasets_are_one_clear_line(tmp_path: Path, hub):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.jsonl").write_bytes(b'{"text": "a"}\n{bad\n')
    assert "doesn't contain any data files" in refused(f"dataset:{tmp_path}/empty")
    assert "JSON parse error" in refused(f"dataset:{tmp_path}/bad")
