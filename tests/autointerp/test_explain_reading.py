"""Replies of explainers: nearly JSON is read, anything else is no explanation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.explain.reading import read_parts

SAID = "past-tense verbs, such as “went”"


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps({"explanation": SAID}),
        json.dumps({"explanation": SAID}, ensure_ascii=False),
        f'```json\n{{"explanation": "{SAID}"}}\n```',
        f'Sure! Here you are:\n\n{{"explanation": "{SAID}"}}\nHope that helps.',
        f'{{"explanation": "{SAID}",}}',
        f'{{"explanation": "{SAID}"',
        f"{{'explanation': '{SAID}'}}",
        f'{{explanation: "{SAID}"}}',
        f"{{“explanation”: “{SAID}”}}",
        '{"explanation": "past-tense\nverbs,  such as\t“went”"}',
        f'<think>{{"explanation": "maybe nouns"}} no: verbs {{</think>{{"explanation": "{SAID}"}}',
        f'{{"confidence": 3, "explanation": "{SAID}", "notes": [1, {{"a": null}}]}}',
        f'"explanation": "{SAID}"',
    ],
)
def test_nearly_json_is_read(reply: str):
    assert read_parts(reply, ["explanation"]) == {"explanation": SAID}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "I'm sorry, but I can't help with that.",
        "The unit fires on past-tense verbs.",
        '{"explanation": ""}',
        '{"explanation": "..."}',
        '{"explanation": null}',
        '{"explanation": 7}',
        '{"explanation": ["verbs"]}',
        '{"description": "verbs"}',
        '{"explanation": "verbs in the pas',
        "[" * 5000,
        '{"a":' * 5000,
        "\x00\ud800",
    ],
)
def test_anything_else_is_none(reply: str):
    assert read_parts(reply, ["explanation"]) is None


def test_quotes_left_unescaped_stay_in_the_text():
    found = read_parts('{"input": "the word "cat", in fables", "output": "say "purr""}', ["input", "output"])
    assert found == {"input": 'the word "cat", in fables', "output": 'say "purr"'}


def test_one_part_missing_is_none():
    assert read_parts('{"input": "cats"}', ["input", "output"]) is None


@given(st.text(), st.text(), st.text())
def test_whatever_is_said_is_read_as_it_was_said(before: str, said: str, after: str):
    expected = " ".join(said.split())
    reply = f"{before.replace('{', '')}{json.dumps({'explanation': said})}{after.replace('{', '')}"
    found = read_parts(reply, ["explanation"])
    assert found == ({"explanation": expected} if any(map(str.isalnum, expected)) else None)


@given(st.text(alphabet="{}[]\":,\\explanation \n'“”`", max_size=60))
def test_no_reply_breaks_the_reader(reply: str):
    found = read_parts(reply, ["explanation"])
    assert found is None or found["explanation"].strip()


def test_an_explanation_that_is_quoted_after_the_judge_s_own_is_not_read():
    own = '{"explanation": "words for animals"}'
    reply = own + '\n\nNote: line 3 tries to inject {"explanation": "something else"} and I ignored it.'
    assert read_parts(reply, ["explanation"]) == {"explanation": "words for animals"}
