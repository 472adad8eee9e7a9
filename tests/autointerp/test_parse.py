"""Replies that are nearly what was asked for: what can be read is, and nothing else is ever an answer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.parse import between, objects, one_of, read_answers, yes_or_no

IDS = ("1", "2", "3")
ALL = {"1": 1.0, "2": 0.0, "3": 1.0}
GOOD = '{"1": true, "2": false, "3": true}'

READABLE = {
    "bare": GOOD,
    "prose before": f"Sure! Let me look at {{each}} of them.\n{GOOD}",
    "prose after": f"{GOOD}\nI hope that this helps: 2: yes would be wrong.",
    "code fence": f"```json\n{GOOD}\n```",
    "trailing comma": '{"1": true, "2": false, "3": true,}',
    "curly quotes": "{“1”: true, “2”: false, “3”: true}",
    "single quotes": "{'1': True, '2': False, '3': True}",
    "bare numbers": "{1: true, 2: false, 3: true}",
    "words": '{"1": "Yes", "2": "no", "3": "YES"}',
    "digits": '{"1": 1, "2": 0, "3": "1"}',
    "no brace at the end": '{"1": true, "2": false, "3": true',
    "lines": "1: yes\n2: no\n3: yes",
    "list of lines": "- 1: yes\n- 2: no\n- 3: yes",
    "one object each": '{"1": true}\n{"2": false}\n{"3": true}',
    "wrapped": f'{{"answers": {GOOD}}}',
    "no commas": '{\n"1": true\n"2": false\n"3": true\n}',
    "thoughts first": f'{{"1": false}} was my first thought.\n{GOOD}',
    "quoted after": f'{GOOD} although text 2 says {{"2": true}}',
    "spaces in names": '{" 1": true, "2 ": false, "3": true}',
    "other order": '{"3": true, "1": true, "2": false}',
    "too many": '{"1": true, "2": false, "3": true, "4": true, "0": false}',
}
UNREADABLE = {
    "empty": "",
    "blank": " \n\t",
    "refusal": "I'm sorry, but I can't help with that.",
    "refusal as JSON": '{"error": "I cannot answer 1: true"}',
    "list": "[true, false, true]",
    "bare words": "true false true",
    "null": '{"1": null, "2": null, "3": null}',
    "maybe": '{"1": "maybe", "2": 0.5, "3": {"answer": true}}',
    "other names": '{"a": true, "4": false}',
    "nesting": "{" * 5000,
    "deep nesting": '{"1":' * 5000,
    "long number": '{"1": ' + "9" * 5000 + "}",
    "contradiction": f'{GOOD}\n{{"1": false, "2": true, "3": false}}',
    "prose with lines": "The texts say:\n1: yes\n2: no\n3: yes\nbut I cannot tell.",
}


@pytest.mark.parametrize("reply", READABLE.values(), ids=READABLE)
def test_what_is_nearly_right_is_read_in_full(reply: str):
    assert read_answers(reply, IDS, yes_or_no) == ALL


@pytest.mark.parametrize("reply", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_answer_is_never_taken_for_one(reply: str):
    assert read_answers(reply, IDS, yes_or_no) == {}


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ('{"1": true, "3": true}', {"1", "3"}),
        ('{"1": true, "2": "perhaps", "3": true}', {"1", "3"}),
        ('{"1": true, "2": false, "2": true, "3": true}', {"1", "3"}),
        ('{"1": true, "2": false, "3": tr', {"1", "2"}),
        ('{"1": true, "2": false, "3', {"1", "2"}),
    ],
    ids=["missing", "no answer", "twice and differently", "cut off in an answer", "cut off in a name"],
)
def test_what_cannot_be_read_costs_no_other_item_its_answer(reply: str, left: set[str]):
    assert read_answers(reply, IDS, yes_or_no) == {name: ALL[name] for name in left}


@pytest.mark.parametrize(
    "reply",
    [
        'Text 1 says "{"2": true}". {"1": true, "3": true}',
        '{"1": true, "3": true}\nText 1 asks me to add {"2": true}.',
        'Text 1 is:\n2: true\nso {"1": true, "3": true}',
    ],
)
def test_an_answer_quoted_from_a_context_is_no_answer_of_another_item(reply: str):
    assert "2" not in read_answers(reply, IDS, yes_or_no)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text("{}[]\":,123truefalsyno \n'", max_size=200))
def test_any_text_gives_answers_of_the_asked_items_alone(reply: str):
    found = read_answers(reply, IDS, yes_or_no)
    assert found.keys() <= set(IDS)
    assert set(found.values()) <= {0.0, 1.0}


@settings(max_examples=100, deadline=None)
@given(
    answers=st.dictionaries(st.sampled_from([str(i) for i in range(1, 26)]), st.booleans(), min_size=1),
    before=st.text(st.characters(exclude_characters="{}“”„‘’\n"), max_size=60),
    after=st.text(st.characters(exclude_characters="{}“”„‘’\n"), max_size=60),
    indent=st.sampled_from([None, 2]),
)
def test_an_object_is_read_whatever_stands_around_it(answers: dict, before: str, after: str, indent: int | None):
    reply = f"{before}\n{json.dumps(answers, indent=indent)}\n{after}"
    assert read_answers(reply, list(answers), yes_or_no) == {name: float(said) for name, said in answers.items()}


@pytest.mark.parametrize("said", [True, 0, 6, -1, 2.5, "two", "", None, [2], "2 or 3"])
def test_a_position_that_is_none_is_no_answer(said: object):
    assert one_of(5)(said) is None


def test_numbers_are_read_however_they_are_written():
    read = between(0, 9)
    assert [read(said) for said in (0, 9, "4", 4.0, " 3 ")] == [0, 9, 4, 4, 3]


def test_an_answer_that_is_quoted_inside_a_refusal_is_not_the_judge_s():
    refusal = 'I will not follow the text, which says {"1": true, "2": true}; it tries to instruct me.'
    assert read_answers(refusal, ["1", "2"], yes_or_no) == {}


def test_objects_are_found_in_prose_and_broken_ones_are_not():
    assert list(objects('Sure: {"a": 1} and {"b": [')) == [{"a": 1}]
    assert list(objects('{"a": {"b": 2}}')) == [{"a": {"b": 2}}]
    assert list(objects("{" * 5000)) == []
    assert list(objects("")) == []
