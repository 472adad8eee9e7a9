"""Backends over the network: what a service does wrong becomes the error that says what to do about it."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from fake_server import BROKEN, BUSY, CUT, DROPPED, NOT_JSON, FakeServer, Step, status
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm import LLM, Reply, Request, open_backend
from autointerp.llm.anthropic_api import AnthropicAPI
from autointerp.llm.errors import BadRequest, Lost, Refused, TooLong
from autointerp.llm.failures import Failure, retry_after
from autointerp.llm.openai_compatible import OpenAICompatible
from store.errors import UsageError

ASK = Request.ask("be brief", "one two three")
SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
SECRET = "sk-very-secret-0123"

NETWORK: dict[str, Callable[..., LLM]] = {
    "openai_compatible": lambda url, **kw: open_backend(
        "openai_compatible", **{"model": "tiny", "base_url": f"{url}/v1", **kw}
    ),
    "anthropic_api": lambda url, **kw: open_backend("anthropic_api", **{"model": "tiny", "base_url": url, **kw}),
}


def ask(llm: LLM, request: Request = ASK) -> Reply:
    return asyncio.run(llm.complete(request))


@pytest.fixture(params=NETWORK)
def opened(request: pytest.FixtureRequest, server: FakeServer) -> Callable[..., LLM]:
    return lambda **settings: NETWORK[request.param](server.url, **settings)


class TestEveryNetworkBackend:
    def test_answers_with_text_and_token_counts(self, opened: Callable[..., LLM]):
        reply = ask(opened())
        assert (reply.text, reply.finish) == ("answer to one two three", "stop")
        assert reply.n_tokens_in >= 5
        assert reply.n_tokens_out == 5

    def test_answers_in_one_event_loop_after_another(self, opened: Callable[..., LLM]):
        llm = opened()
        assert ask(llm) == ask(llm)

    @pytest.mark.parametrize("step", [BUSY, BROKEN, DROPPED, CUT, NOT_JSON, Step(body={"id": 1}), Step(body="[]")])
    def test_what_breaks_is_refused_and_the_next_try_passes(
        self, opened: Callable[..., LLM], server: FakeServer, step: Step
    ):
        server.script.append(step)
        llm = opened()
        with pytest.raises(Refused):
            ask(llm)
        assert ask(llm).text == "answer to one two three"

    def test_a_slow_answer_is_refused_when_its_time_is_up(self, opened: Callable[..., LLM], server: FakeServer):
        server.script.append(Step(wait_s=0.5))
        with pytest.raises(Refused, match=r"within 0\.1 s"):
            ask(opened(timeout_s=0.1))

    def test_a_server_that_is_not_there_is_refused(self, opened: Callable[..., LLM], server: FakeServer):
        llm = opened()
        server.__exit__()
        with pytest.raises(Refused, match="127"):
            ask(llm)

    def test_retry_after_is_passed_on(self, opened: Callable[..., LLM], server: FakeServer):
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        server.script.extend(status(429, "", {"Retry-After": said}) for said in ("7", soon, "later"))
        told = []
        for _ in range(3):
            with pytest.raises(Refused) as refused:
                ask(opened())
            told.append(refused.value.retry_after_s)
        assert told[0] == 7
        assert 50 < told[1] <= 60
        assert told[2] is None

    def test_half_a_surrogate_pair_is_sent_as_a_replacement(self, opened: Callable[..., LLM], server: FakeServer):
        ask(opened(), Request.ask("be \ud83d", "half \ud83d"))
        assert server.asked[0]["messages"][-1]["content"] == "half \ufffd"

    def test_a_context_too_long_tells_both_numbers(self, opened: Callable[..., LLM], server: FakeServer):
        server.window = 4
        with pytest.raises(TooLong) as long:
            ask(opened(), Request.ask("", "one two three four five six"))
        assert (long.value.n_tokens, long.value.limit) == (6, 4)

    def test_an_unknown_model_lists_those_there_are(self, opened: Callable[..., LLM]):
        with pytest.raises(UsageError, match=r"no model 'absent': choose one of other, tiny"):
            ask(opened(model="absent"))

    def test_a_schema_is_sent_until_it_is_refused(self, opened: Callable[..., LLM], server: FakeServer):
        server.refuses = {"response_format", "output_config"}
        llm, request = opened(), replace(ASK, schema=SCHEMA)
        assert ask(llm, request) == ask(llm, request)
        sent = [bool(server.refuses & set(body)) for body in server.asked]
        assert sent == [True, False, False]

    def test_a_temperature_that_is_refused_is_left_out(self, opened: Callable[..., LLM], server: FakeServer):
        server.refuses = {"temperature"}
        assert ask(opened()).text
        assert ["temperature" in body for body in server.asked] == [True, False]

    def test_another_bad_request_is_not_tried_again(self, opened: Callable[..., LLM], server: FakeServer):
        server.script.append(status(400, "messages: must alternate"))
        with pytest.raises(BadRequest, match="must alternate"):
            ask(opened())
        assert len(server.asked) == 1

    def test_a_reply_cut_at_the_limit_says_so(self, opened: Callable[..., LLM]):
        assert ask(opened(), replace(ASK, max_tokens=2)).finish == "length"

    def test_a_wrong_key_names_its_variable_and_is_shown_nowhere(
        self,
        opened: Callable[..., LLM],
        server: FakeServer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ):
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("MONOSEM_LLM_KEY", SECRET)
        server.key = "another"
        llm = opened()
        with pytest.raises(UsageError, match="MONOSEM_LLM_KEY") as error:
            ask(llm)
        server.key = None
        server.script.append(status(400, f"no luck with {SECRET}"))
        with pytest.raises(BadRequest) as quoted:
            ask(llm)
        assert SECRET in str(server.seen[0][1])
        for shown in (error.value, quoted.value, llm, llm.name, vars(llm), caplog.text):
            assert SECRET not in str(shown) + repr(shown)

    def test_a_changed_key_is_used_at_once(
        self, opened: Callable[..., LLM], server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ):
        llm = opened()

        async def twice() -> None:
            for key in ("first", "second"):
                server.key = key
                monkeypatch.setenv("MONOSEM_LLM_KEY", key)
                await llm.complete(ASK)

        asyncio.run(twice())

    def test_many_requests_are_under_way_at_once(self, opened: Callable[..., LLM], server: FakeServer):
        server.latency_s = 0.3
        llm = opened()

        async def many() -> list[Reply]:
            return await asyncio.gather(*(llm.complete(Request.ask("", f"q {i}")) for i in range(16)))

        assert [reply.text for reply in asyncio.run(many())] == [f"answer to q {i}" for i in range(16)]
        assert server.most_busy > 8

    def test_no_model_is_an_error_before_anything_is_sent(self, opened: Callable[..., LLM]):
        with pytest.raises(UsageError, match="needs a model"):
            opened(model="")


class TestOpenAICompatible:
    def test_everything_asked_for_is_sent(self, server: FakeServer):
        request = replace(ASK, schema=SCHEMA, seed=7, temperature=0.5, top_logprobs=2, max_tokens=9)
        ask(NETWORK["openai_compatible"](server.url), request)
        body = server.asked[0]
        assert body["response_format"]["json_schema"]["schema"] == json.loads(SCHEMA)
        assert [body[name] for name in ("seed", "temperature", "top_logprobs", "max_tokens")] == [7, 0.5, 2, 9]
        assert [turn["role"] for turn in body["messages"]] == ["system", "user"]

    def test_logprobs_usage_and_cost_come_back(self, server: FakeServer):
        server.usage = {"prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 40}, "cost": 0.25}
        reply = ask(NETWORK["openai_compatible"](server.url), replace(ASK, top_logprobs=2))
        assert (reply.n_tokens_in, reply.n_tokens_cached, reply.usd) == (50, 40, 0.25)
        assert reply.logprobs is not None
        assert [token.token for token in reply.logprobs] == reply.text.split()
        assert reply.logprobs[0].top == {"answer": -0.5, "answer1": -1.5}

    def test_tokens_that_the_server_does_not_count_are_guessed_and_never_zero(self, server: FakeServer):
        server.usage = {"prompt_tokens": None, "completion_tokens": None}
        reply = ask(NETWORK["openai_compatible"](server.url))
        assert (reply.n_tokens_in, reply.n_tokens_out) == (6, 6)

    def test_models_that_want_the_new_name_of_the_limit_get_it(self, server: FakeServer):
        server.refuses = {"max_tokens"}
        assert ask(NETWORK["openai_compatible"](server.url), replace(ASK, max_tokens=3)).finish == "length"
        assert server.asked[-1]["max_completion_tokens"] == 3

    def test_one_refused_schema_leaves_the_others_in(self, server: FakeServer):
        llm = NETWORK["openai_compatible"](server.url)
        server.script.append(status(400, "Invalid schema for response_format 'reply'", param="response_format"))
        ask(llm, replace(ASK, schema=SCHEMA))
        ask(llm, replace(ASK, schema='{"type": "object"}'))
        assert ["response_format" in body for body in server.asked] == [True, False, True]

    def test_an_error_of_status_200_counts_by_its_code(self, server: FakeServer):
        server.script.extend([Step(body={"error": {"code": 429, "message": "x"}}), Step(body={"error": {"code": 402}})])
        llm = NETWORK["openai_compatible"](server.url)
        with pytest.raises(Refused):
            ask(llm)
        with pytest.raises(UsageError, match="credit"):
            ask(llm)

    def test_an_account_without_credit_is_not_tried_again(self, server: FakeServer):
        server.script.append(status(429, "You exceeded your current quota", code="insufficient_quota"))
        with pytest.raises(UsageError, match="credit"):
            ask(NETWORK["openai_compatible"](server.url))

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            (403, "You have no access to this project"),
            (403, "Country, region, or territory not supported"),
            (400, "This organization has been disabled."),
            (429, "Your account is not active, please check your billing details"),
            (403, "Your account was suspended"),
        ],
    )
    def test_an_account_that_is_not_let_in_stops_at_once(self, server: FakeServer, code: int, said: str):
        server.script.append(status(code, said))
        with pytest.raises(UsageError, match=f"does not let this account in: {said}"):
            ask(NETWORK["openai_compatible"](server.url))

    def test_a_403_about_the_text_is_about_this_request(self, server: FakeServer):
        server.script.append(status(403, "openai requires moderation and your input was flagged for violence"))
        with pytest.raises(BadRequest, match="flagged"):
            ask(NETWORK["openai_compatible"](server.url))

    def test_a_refusal_is_text_with_its_own_finish(self, server: FakeServer):
        said = {"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"}
        server.script.append(Step(body={"choices": [said], "usage": {}}))
        reply = ask(NETWORK["openai_compatible"](server.url))
        assert (reply.text, reply.finish) == ("I will not", "refusal")

    def test_content_in_parts_is_joined(self, server: FakeServer):
        parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
        server.script.append(Step(body={"choices": [{"message": {"content": parts}}]}))
        assert ask(NETWORK["openai_compatible"](server.url)).text == "one two"

    @pytest.mark.parametrize(
        "content", [[{"type": "image", "url": "x"}], [{"type": "text", "text": 3}], ["bare"], {"text": "a"}, 7, True]
    )
    def test_content_that_is_no_text_is_lost(self, server: FakeServer, content: Any):
        server.script.append(Step(body={"choices": [{"message": {"content": content}}]}))
        with pytest.raises(Lost):
            ask(NETWORK["openai_compatible"](server.url))

    def test_an_address_without_the_endpoint_says_what_to_give(self, server: FakeServer):
        with pytest.raises(UsageError, match="ends in /v1"):
            ask(OpenAICompatible("tiny", f"{server.url}/v2"))

    @given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
    def test_no_json_whatever_gets_past_as_a_reply(self, junk: Any):
        llm = OpenAICompatible("tiny")
        for body in (
            {"choices": junk},
            {"choices": [junk]},
            {"choices": [{"message": junk, "logprobs": {"content": junk}}]},
        ):
            try:
                found = llm.parsed(body, ASK)
            except Refused:
                continue
            assert isinstance(found, Reply)
            assert isinstance(found.text, str)


class TestAnthropic:
    def test_json_that_is_no_object_may_have_cost_something(self, server: FakeServer):
        server.script.append(Step(body="[]"))
        with pytest.raises(Lost, match="no object"):
            ask(NETWORK["anthropic_api"](server.url))

    def test_system_text_is_marked_for_the_cache_and_counted(self, server: FakeServer):
        reply = ask(NETWORK["anthropic_api"](server.url))
        assert server.asked[0]["system"][0]["cache_control"] == {"type": "ephemeral"}
        assert (reply.n_tokens_in, reply.n_tokens_cached) == (3 + 5 + 2, 5)

    def test_a_schema_goes_out_as_the_output_format(self, server: FakeServer):
        ask(NETWORK["anthropic_api"](server.url), replace(ASK, schema=SCHEMA))
        assert server.asked[0]["output_config"]["format"]["schema"] == json.loads(SCHEMA)

    def test_without_the_sdk_one_line_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "anthropic", None)
        with pytest.raises(UsageError, match=r"pip install 'monosem\[anthropic\]'"):
            AnthropicAPI("tiny")

    def test_importing_the_backend_loads_no_sdk(self):
        code = "import sys, autointerp.llm.anthropic_api; print('anthropic' in sys.modules)"
        assert (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
            == "False"
        )


@pytest.mark.parametrize(
    ("said", "sizes"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8000 in the",
            (9000, 8192),
        ),
        (
            "This model's maximum context length is 2048 tokens. However, your request has 3000 input tokens",
            (3000, 2048),
        ),
        (
            "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens",
            (5000, 4096),
        ),
        ("prompt is too long: 208310 tokens > 200000 maximum", (208310, 200000)),
        ("the request exceeds the available context size, try increasing it", (None, None)),
    ],
)
def test_every_wording_of_too_long_is_understood(said: str, sizes: tuple[int | None, int | None]):
    error = Failure.of(400, {"error": {"message": said}}).error("http://localhost/v1")
    assert isinstance(error, TooLong)
    assert (error.n_tokens, error.limit) == sizes


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_retry_after_header_is_more_than_a_number_or_none(said: str):
    found = retry_after({"retry-after": said})
    assert found is None or 0 <= found < float("inf")
