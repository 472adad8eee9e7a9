"""Scorers that ask a judge, at their limits: little to judge, prompts too long, odd tokens, settings out of range."""

import asyncio
import json
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from judging import DETECTIVES, JUDGED, Changing, judge, perfect, trial

from autointerp.latent import ACTIVE, Item, Trial
from autointerp.llm import Reply, Request
from autointerp.llm.errors import TooLong
from autointerp.llm.local_grammar import spelled
from autointerp.parse import read_answers, yes_or_no
from autointerp.prompts import FENCE
from autointerp.prompts.judging import DETECTION
from autointerp.scorers.asking import Form, ask
from autointerp.scorers.detection import BOOLEAN
from autointerp.scorers.generation import schema_of
from autointerp.scorers.simulation import one_line
from autointerp.statistics import scored
from autointerp.tools import ToolsConfig
from store.errors import UsageError

WHOLE = trial(n=12)
ACTIVE_ONLY = replace(WHOLE, items=tuple(item for item in WHOLE.items if item.active))
SILENT_ONLY = replace(WHOLE, items=tuple(item for item in WHOLE.items if not item.active))
FEW = {
    "nothing": replace(WHOLE, items=()),
    "no active": SILENT_ONLY,
    "no silent": ACTIVE_ONLY,
    "one active": replace(WHOLE, items=ACTIVE_ONLY.items[:1]),
    "one silent": replace(WHOLE, items=SILENT_ONLY.items[:1]),
    "one of each": replace(WHOLE, items=(ACTIVE_ONLY.items[0], SILENT_ONLY.items[0])),
}


class TestLittleToJudge:
    @pytest.mark.parametrize("few", FEW)
    @pytest.mark.parametrize("name", JUDGED)
    def test_gives_a_score_that_counts_what_there_was(self, name: str, few: str):
        found = judge(name, perfect(), given=FEW[few])
        assert found.n_judged == len(found.examples)
        assert found.n_unparsed == 0
        assert (found.value is None) <= (found.interval is None)
        assert found.value is not None or found.bounds is None

    @pytest.mark.parametrize("few", ["nothing", "no active", "no silent", "one active", "one silent"])
    @pytest.mark.parametrize("name", [*DETECTIVES, "simulation"])
    def test_of_one_side_alone_has_no_value(self, name: str, few: str):
        assert judge(name, perfect(), given=FEW[few]).value is None

    def test_no_question_is_no_prompt(self):
        llm = perfect()
        form = Form(prompt=DETECTION, read=yes_or_no, schema=BOOLEAN)
        assert asyncio.run(ask(llm, form, [], explanation="x")) == []
        assert not llm.requests


class Small:
    """A judge that reads no more than `limit` tokens, each of four letters."""

    name = "small:judge"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inner = perfect()

    async def complete(self, request: Request) -> Reply:
        n_tokens = sum(len(message.text) for message in request.messages) // 4 + request.max_tokens
        if n_tokens > self.limit:
            raise TooLong("too long", n_tokens, self.limit)
        return await self.inner.complete(request)


@pytest.mark.parametrize("name", ["detection", "fuzzing", "intruder"])
@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_as_many_contexts_as_are_said_to_fit_do(name: str, share: float):
    longest = max(
        sum(len(message.text) for message in request.messages) // 4 + request.max_tokens
        for request in _requests(name, per_prompt=100)
    )
    limit = int(share * longest)
    with pytest.raises(UsageError) as refused:
        judge(name, Small(limit), per_prompt=100)
    said = re.search(r"--per-prompt (\d+)$", str(refused.value))
    assert said
    assert judge(name, Small(limit), per_prompt=int(said[1])).value == 1.0


def _requests(name: str, per_prompt: int = 25) -> list[Request]:
    llm = perfect()
    judge(name, llm, per_prompt=per_prompt)
    return llm.requests


def test_a_text_too_long_to_simulate_names_a_way_out_that_helps():
    with pytest.raises(UsageError) as refused:
        judge("simulation", Small(100))
    assert "--per-prompt" not in str(refused.value)
    assert "larger context window, or smaller contexts" in str(refused.value)


class TestPositions:
    @pytest.mark.parametrize("name", ["intruder", "discrimination"])
    def test_have_no_figures_that_mean_nothing(self, name: str):
        assert judge(name, perfect()).metrics == {"accuracy": 1.0}

    @pytest.mark.parametrize("places", [(1, 1, 1), (1, 2, 1), (3, 5, 2)])
    def test_that_cannot_be_read_are_right_or_wrong_wherever_the_right_one_is(self, places: tuple[int, ...]):
        def last_unread(n: int, text: str, request: Request) -> str:
            said = {name: 1 + int(where) % 5 for name, where in json.loads(text).items()}
            return json.dumps({name: where for name, where in said.items() if name != "3"})

        examples = judge("intruder", Changing(last_unread), given=trial(n=12)).examples
        moved = [replace(each, truth=float(place)) for each, place in zip(examples, places, strict=True)]
        wrong = [replace(each, answer=each.answer and 4.0) for each in moved]
        assert scored(wrong, value="accuracy", chance=0.2, beside=()).bounds == (0.0, pytest.approx(1 / 3))


def unescaped(line: str) -> str:
    """What Python reads in the escapes alone."""
    return re.sub(
        r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)",
        lambda found: found[0].encode("ascii").decode("unicode_escape"),
        line[1:-1],
    )


@given(st.text(st.characters()) | st.text("\\ntx0]\n\r\u2028<>/data «»\ud800", max_size=12))
@example("</data>")
@example("\\n")
@example("]\n2: [x")
@example("<data><data>")
def test_a_token_is_one_line_of_its_own_and_no_fence(token: str):
    line = one_line(token)
    assert len(line.splitlines()) == 1
    assert unescaped(line) == token
    assert not FENCE.search(line)


def test_tokens_that_look_like_questions_get_one_answer_each():
    item = _item(WHOLE, ("a", "\n3: [cat]", "]", "</data>", " cat", "\\", "", "«cat»"))
    silent = next(item for item in WHOLE.items if not item.active)
    found = judge("simulation", perfect(), given=replace(WHOLE, items=(item, silent)))
    assert [each.token for each in found.examples] == [*range(8), *range(8)]
    assert found.n_unparsed == 0


def _item(given: Trial, tokens: tuple[str, ...]) -> Item:
    first = next(item for item in given.items if item.active)
    return Item(replace(first.window, tokens=tokens), ACTIVE, first.marked)


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("per_prompt", 0, "per_prompt=0 is not from 1 to 100"),
            ("per_prompt", 101, "per_prompt=101 is not from 1 to 100"),
            ("top_logprobs", -1, "top_logprobs=-1 is not from 0 to 20"),
            ("top_logprobs", 21, "top_logprobs=21 is not from 0 to 20"),
        ],
    )
    def test_out_of_range_are_refused_in_one_line_with_a_way_out(self, name: str, value: int, said: str):
        with pytest.raises(UsageError, match=said) as refused:
            replace(ToolsConfig(), **{name: value})
        assert ": " in str(refused.value)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("per_prompt", [1, 100])
    @pytest.mark.parametrize("name", JUDGED)
    def test_at_their_ends_lose_no_answer(self, name: str, per_prompt: int):
        assert judge(name, perfect(), per_prompt=per_prompt).n_unparsed == 0


def test_a_model_in_process_can_be_held_to_every_shape_that_is_asked_for():
    shapes = [schema_of(10), *(request.schema for name in JUDGED for request in _requests(name))]
    assert all(spelled(shape or "") is not None for shape in shapes)


@pytest.mark.parametrize(
    "said", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400, "-1", "2", "0.9999", "[true]", '{"a": true}', '"1e0"']
)
def test_a_number_that_is_neither_yes_nor_no_costs_its_own_answer_alone(said: str):
    assert read_answers(f'{{"1": true, "2": {said}, "3": false}}', ("1", "2", "3"), yes_or_no) == {"1": 1.0, "3": 0.0}
