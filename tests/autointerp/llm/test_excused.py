"""Requests that are turned down: one costs its answer, one after another stop the job."""

import asyncio
import logging

import pytest

from autointerp.llm import Reply, Request
from autointerp.llm.batch import NotTaken
from autointerp.llm.errors import BadRequest, TooLong
from autointerp.llm.excused import PATIENCE, PATIENCE_LATER, REFUSED, Excused
from store.errors import UsageError


class Told:
    """Raises as the request's text says."""

    name = "told"

    async def complete(self, request: Request) -> Reply:
        said = request.messages[-1].text
        if said != "answer":
            raise {"bad": BadRequest, "long": TooLong, "batch": NotTaken}[said](said)
        return Reply(text=said, n_tokens_in=1, n_tokens_out=1)


def finishes(*said: str) -> list[str]:
    async def each() -> list[str]:
        llm = Excused(Told())
        return [(await llm.complete(Request.ask("", text))).finish for text in said]

    return asyncio.run(each())


def test_fewer_in_a_row_are_excused_however_many_in_all():
    some = ["answer", *["bad"] * (PATIENCE_LATER - 1)]
    assert finishes(*some * 5) == ["stop", *[REFUSED] * (PATIENCE_LATER - 1)] * 5


def test_a_service_that_never_answered_is_stopped_sooner():
    assert finishes(*["bad"] * (PATIENCE - 1)) == [REFUSED] * (PATIENCE - 1)
    with pytest.raises(UsageError, match=f"turned down all of {PATIENCE} requests"):
        finishes(*["bad"] * PATIENCE)


def test_a_service_that_answers_no_more_is_stopped_in_the_end():
    with pytest.raises(UsageError, match=rf"turned down the last {PATIENCE_LATER} requests \(last: bad\).*--backend"):
        finishes("answer", *["bad"] * PATIENCE_LATER)


@pytest.mark.parametrize(("said", "error"), [("long", TooLong), ("batch", UsageError)])
def test_what_is_no_fault_of_one_request_is_not_excused(said: str, error: type[Exception]):
    with pytest.raises(error):
        finishes("answer", said)


def test_each_is_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        finishes("answer", "bad")
    assert "told will not answer a request" in caplog.text
