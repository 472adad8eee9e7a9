"""Labelled texts: groups stay on one side, draws are balanced, and what a person gets wrong is one line."""

import json
from pathlib import Path

import pytest

from activations.labelled import LabelledSet, LabelledText, crossed_with_case, drawn, read_labelled
from store.errors import UsageError


def rows(n: int, **more: str) -> list[dict[str, str]]:
    return [
        {"text": f"Text {i}, by hand.", "label": "ab"[i % 2], "group": f"author {i // 4}", **more} for i in range(n)
    ]


def jsonl(path: Path, values: list[dict[str, str]]) -> str:
    path.write_text("\n".join(json.dumps(value) for value in values))
    return str(path)


def test_a_group_is_on_one_side_only(tmp_path: Path) -> None:
    found = read_labelled(jsonl(tmp_path / "own.jsonl", rows(400)))
    sides = [{text.group for text in found.texts if text.split == side} for side in ("train", "test")]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_a_draw_has_as_many_of_each_class_and_no_text_twice(tmp_path: Path) -> None:
    values = rows(400) + rows(400)[:40]
    found = drawn(read_labelled(jsonl(tmp_path / "own.jsonl", values)), 80, 40, seed=0)
    for texts, each in ((found.train, 40), (found.test, 20)):
        assert [sum(text.label == label for text in texts) for label in "ab"] == [each, each]
    everything = [text.text for text in (*found.train, *found.test)]
    assert len(set(everything)) == len(everything)


def test_a_seed_decides_the_draw() -> None:
    labelled = read_labelled("made_up")
    assert drawn(labelled, 60, 30, 1) == drawn(labelled, 60, 30, 1) != drawn(labelled, 60, 30, 2)


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    found = read_labelled(jsonl(tmp_path / "own.jsonl", rows(8, split="test")))
    assert {text.split for text in found.texts} == {"test"}


def test_a_csv_reads_as_its_jsonl(tmp_path: Path) -> None:
    values = rows(12)
    lines = ["text,label,group", *(f'"{v["text"]}",{v["label"]},{v["group"]}' for v in values)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    assert read_labelled(str(tmp_path / "own.csv")).texts == read_labelled(jsonl(tmp_path / "o.jsonl", values)).texts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"text": f"text {i}", "label": "a"} for i in range(50)], "only the label 'a'"),
        ([{"text": "one"}], "no 'label'"),
        ([{"label": "a"}], "no 'text'"),
        ([{"text": "one", "label": "a", "split": "dev"}], "the split 'dev'"),
        ([], "no text"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, values: list[dict[str, str]], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read_labelled(jsonl(tmp_path / "own.jsonl", values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"), [("own.txt", "a"), ("own.jsonl", "{"), ("own.jsonl", "[1]"), ("no.csv", None)]
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as error:
        read_labelled(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_too_few_texts_of_a_class_are_refused(tmp_path: Path) -> None:
    values = [*rows(400), {"text": "alone", "label": "c", "group": "x"}]
    with pytest.raises(UsageError, match="labelled 'c', at least 20 are needed"):
        drawn(read_labelled(jsonl(tmp_path / "own.jsonl", values)), 80, 40, 0)


def test_crossing_with_case_makes_four_labels_and_keeps_groups() -> None:
    labelled = read_labelled("made_up")
    crossed = crossed_with_case(labelled, seed=0)
    assert len(crossed.classes) == 4
    assert {text.group for text in crossed.texts} <= {text.group for text in labelled.texts}
    lower = [text.text for text in crossed.texts if text.label.endswith("lower case")]
    assert lower
    assert all(text == text.lower() and "." not in text for text in lower)


def test_crossed_labels_are_in_order_whatever_the_classes_are_called() -> None:
    labels = ("a", "a / b")
    texts = tuple(LabelledText(f"Plain text {i}.", labels[i % 2], str(i), "train") for i in range(40))
    crossed = crossed_with_case(LabelledSet("own", texts), 0)
    assert [label.rsplit(" / ", 1)[0] for label in crossed.classes] == ["a", "a", "a / b", "a / b"]
    assert set(crossed.classes) == {text.label for text in crossed.texts}


def test_texts_in_lower_case_cannot_be_crossed() -> None:
    texts = tuple(LabelledText(f"plain text {i}", "ab"[i % 2], str(i), "train") for i in range(20))
    with pytest.raises(UsageError, match="lower case already"):
        crossed_with_case(LabelledSet("own", texts), 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["topics", "parties", "reviews", "kinds"])
def test_no_group_of_a_real_data_set_is_on_both_sides(name: str) -> None:
    found = drawn(read_labelled(name), 600, 400, seed=0)
    sides = [{text.group for text in side} for side in (found.train, found.test)]
    assert not sides[0] & sides[1]
    assert not {text.text for text in found.train} & {text.text for text in found.test}


def test_a_group_on_both_sides_is_named(tmp_path: Path) -> None:
    values = [*rows(8, split="test"), {"text": "more", "label": "a", "group": "author 1", "split": "train"}]
    with pytest.raises(UsageError, match="the group 'author 1' in train and in test"):
        read_labelled(jsonl(tmp_path / "own.jsonl", values))


def test_a_text_without_a_split_follows_its_group(tmp_path: Path) -> None:
    given = [{**row, "split": "test"} if i % 4 == 3 else row for i, row in enumerate(rows(400))]
    found = read_labelled(jsonl(tmp_path / "own.jsonl", given))
    assert {text.split for text in found.texts} == {"test"}


def test_a_group_may_be_zero(tmp_path: Path) -> None:
    values = [{"text": f"text {i}", "label": i % 2, "group": 0} for i in range(4)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, values)))
    found = read_labelled(str(tmp_path / "own.jsonl"))
    assert {text.group for text in found.texts} == {"0"}
    assert found.classes == ("0", "1")


def test_an_empty_label_names_its_row(tmp_path: Path) -> None:
    values = [*rows(4), {"text": "one", "label": " "}]
    with pytest.raises(UsageError, match=r"own\.jsonl:5 has an empty label"):
        read_labelled(jsonl(tmp_path / "own.jsonl", values))


def test_a_text_with_two_labels_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = [*rows(8), {**rows(1)[0], "label": "b"}]
    found = read_labelled(jsonl(tmp_path / "own.jsonl", values))
    assert len(found.texts) == 7
    assert rows(1)[0]["text"] not in {text.text for text in found.texts}
    assert "1 texts with more than one label" in caplog.text
