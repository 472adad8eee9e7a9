"""Batches: gathered, found again after any crash, never sent twice, failures told apart request by request."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_batches import Batches
from fake_server import FakeServer

from autointerp.llm import BACKENDS, Reply, Request, open_backend
from autointerp.llm.batch import Batched, custom_id
from autointerp.llm.batch_records import Records
from autointerp.llm.errors import BadRequest, Refused
from store.errors import UsageError

NETWORK = ("anthropic_batch", "openai_batch")
ADDRESS = {"anthropic_batch": "", "openai_batch": "/v1"}
ASKS = [Request.ask("be brief", f"question {i}") for i in range(5)]


def opened(backend: str, url: str, folder: Path, **settings: Any) -> Batched:
    times = {"gather_s": 0.02, "poll_s": 0.02, "timeout_s": 10.0}
    llm = open_backend(backend, model="tiny", folder=folder, base_url=url + ADDRESS[backend], **times)
    assert isinstance(llm, Batched)
    for name, value in ({"settle_s": 0.5} | settings).items():
        setattr(llm, name, value)
    return llm


def ask(llm: Batched, requests: list[Request] = ASKS, seconds: float = 10.0) -> list[Reply | BaseException]:
    async def all_of_them() -> list[Reply | BaseException]:
        calls = (llm.complete(request) for request in requests)
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), seconds)

    return asyncio.run(all_of_them())


def break_off(llm: Batched) -> None:
    """Ask for all, and end as soon as the batch is written down with its id."""

    def sent() -> bool:
        return any(json.loads(path.read_text())["batch_id"] for path in llm.folder.glob("*.json"))

    async def until_sent() -> None:
        calls = asyncio.gather(*(llm.complete(request) for request in ASKS))
        async with asyncio.timeout(10):
            while not sent():
                await asyncio.sleep(0.01)
        calls.cancel()

    asyncio.run(until_sent())


def texts(found: list[Reply | BaseException]) -> list[str]:
    return [end.text if isinstance(end, Reply) else type(end).__name__ for end in found]


ANSWERS = [f"answer to question {i}" for i in range(5)]


@pytest.fixture(params=NETWORK)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def batches(backend: str, server: FakeServer) -> Batches:
    return server.openai_batches if backend == "openai_batch" else server.anthropic_batches


@pytest.fixture
def fresh(backend: str, server: FakeServer, tmp_path: Path) -> Callable[..., Batched]:
    """Opens the backend as another process would: all it knows is in the folder."""
    return lambda **settings: opened(backend, server.url, tmp_path / "batches", **settings)


def test_what_is_asked_together_goes_out_as_one_batch_and_comes_back_by_id(
    fresh: Callable[..., Batched], batches: Batches
):
    assert texts(ask(fresh())) == ANSWERS
    assert len(batches.made) == 1


def test_more_than_a_batch_holds_goes_out_as_several(fresh: Callable[..., Batched], batches: Batches):
    assert texts(ask(fresh(max_requests=2))) == ANSWERS
    assert len(batches.made) == 3


def test_equal_requests_are_sent_once(fresh: Callable[..., Batched], batches: Batches):
    assert texts(ask(fresh(), [ASKS[0]] * 3)) == ANSWERS[:1] * 3
    assert len(batches.made) == 1


def test_another_process_waits_for_the_batch_that_has_the_request_whatever_it_asks_with_it(
    fresh: Callable[..., Batched], batches: Batches
):
    batches.polls = 10**6
    break_off(fresh())
    batches.polls = 0
    assert texts(ask(fresh(), ASKS[3:])) == ANSWERS[3:]
    assert texts(ask(fresh(), ASKS[:3])) == ANSWERS[:3]
    assert len(batches.made) == 1


def test_one_object_goes_on_where_a_broken_off_run_of_it_stopped(fresh: Callable[..., Batched], batches: Batches):
    batches.polls, llm = 10**6, fresh()
    break_off(llm)
    batches.polls = 0
    assert texts(ask(llm)) == ANSWERS
    assert len(batches.made) == 1


def test_a_batch_whose_id_never_arrived_is_found_and_not_sent_again(fresh: Callable[..., Batched], batches: Batches):
    batches.lose_answer = True
    assert texts(ask(fresh())) == ["Refused"] * 5
    batches.lose_answer = False
    llm = fresh()
    assert texts(ask(llm)) == ANSWERS
    assert len(batches.made) == 1


def test_a_batch_that_never_arrived_is_sent(
    fresh: Callable[..., Batched], batches: Batches, monkeypatch: pytest.MonkeyPatch
):
    async def nothing_answers(label: str, requests: Any) -> str:
        raise Refused("no connection")

    llm = fresh()
    with monkeypatch.context() as patched:
        patched.setattr(llm.service, "submit", nothing_answers)
        assert texts(ask(llm)) == ["Refused"] * 5
    assert not batches.made
    assert texts(ask(fresh())) == ANSWERS
    assert len(batches.made) == 1


def test_two_processes_that_ask_the_same_share_a_batch(fresh: Callable[..., Batched], batches: Batches):
    async def both() -> list[Reply]:
        llms = (fresh(), fresh())
        return await asyncio.gather(*(llm.complete(ASKS[0]) for llm in llms))

    batches.polls = 3
    assert texts(list(asyncio.run(both()))) == ANSWERS[:1] * 2
    assert len(batches.made) == 1


def test_a_batch_is_left_to_its_sender_while_that_is_alive(fresh: Callable[..., Batched], batches: Batches):
    first, second = fresh(), fresh(settle_s=0.0)
    submit, at_work = first.service.submit, asyncio.Event()

    async def slowly(label: str, requests: Any) -> str:
        at_work.set()
        await asyncio.sleep(1.0)
        return await submit(label, requests)

    first.service.submit = slowly  # pyright: ignore

    async def both() -> list[Reply]:
        one = asyncio.ensure_future(first.complete(ASKS[0]))
        await at_work.wait()
        return [await second.complete(ASKS[0]), await one]

    assert texts(list(asyncio.run(both()))) == ANSWERS[:1] * 2
    assert len(batches.made) == 1


def test_a_batch_that_its_sender_gave_up_is_sent_by_who_waited_for_it(fresh: Callable[..., Batched], batches: Batches):
    first, second = fresh(), fresh()
    at_work = asyncio.Event()

    async def badly(label: str, requests: Any) -> str:
        at_work.set()
        await asyncio.sleep(0.3)
        raise BadRequest("not like this")

    first.service.submit = badly  # pyright: ignore

    async def both() -> list[Reply | BaseException]:
        one = asyncio.ensure_future(first.complete(ASKS[0]))
        await at_work.wait()
        return list(await asyncio.gather(one, second.complete(ASKS[0]), return_exceptions=True))

    assert texts(asyncio.run(both())) == ["NotTaken", ANSWERS[0]]
    assert len(batches.made) == 1


def test_no_request_is_in_neither_list_of_a_claim(tmp_path: Path):
    names, found = [f"name {i}" for i in range(40)], []

    def claim() -> None:
        held, new = Records(tmp_path, "service").claim(names, 7)
        found.append(({name for record in held for name in record.custom_ids}, [r.custom_ids for r in new]))

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    new = [name for _, lists in found for custom_ids in lists for name in custom_ids]
    assert sorted(new) == sorted(names)
    assert all(held | {name for ids in lists for name in ids} == set(names) for held, lists in found)


@pytest.mark.parametrize("fate", ["expired", "missing", "busy"])
def test_a_request_without_an_answer_is_refused_alone_and_goes_into_another_batch(
    fresh: Callable[..., Batched], batches: Batches, fate: str
):
    batches.fates = {"question 1": fate}
    assert texts(ask(fresh())) == [ANSWERS[0], "Refused", *ANSWERS[2:]]
    batches.fates = {}
    assert texts(ask(fresh())) == ANSWERS
    sizes = [len(batch.get("requests", ())) for batch in batches.made.values()]
    assert len(sizes) == 2
    assert sizes in ([5, 1], [0, 0])


def test_a_request_that_is_bad_stays_bad_without_being_sent_again(fresh: Callable[..., Batched], batches: Batches):
    batches.fates = {"question 2": "bad"}
    llm = fresh()
    for _ in range(2):
        found = ask(llm)
        assert isinstance(found[2], BadRequest)
        assert texts(found[:2] + found[3:]) == ANSWERS[:2] + ANSWERS[3:]
    assert len(batches.made) == 1


def test_a_field_that_the_server_refuses_is_left_out_of_the_next_batch(
    fresh: Callable[..., Batched], server: FakeServer
):
    server.refuses, llm = {"temperature"}, fresh()
    assert texts(ask(llm)) == ["Refused"] * 5
    assert texts(ask(llm)) == ANSWERS


def test_a_look_that_fails_is_no_end(fresh: Callable[..., Batched], server: FakeServer, batches: Batches):
    batches.polls, server.fail_looks = 3, 2
    assert texts(ask(fresh())) == ANSWERS
    assert server.fail_looks == 0


def test_answers_may_hold_any_line_separator(fresh: Callable[..., Batched], server: FakeServer):
    said = "one\u2028two\u2029three\x85four\x0bfive"
    server.answer = lambda _: said
    assert texts(ask(fresh())) == [said] * 5


def test_an_ended_batch_that_cannot_be_read_is_told_in_the_end_and_kept(
    fresh: Callable[..., Batched], batches: Batches, tmp_path: Path
):
    batches.garbled = True
    found = ask(fresh(poll_s=0.001))
    (path,) = (tmp_path / "batches").glob("*.json")
    assert all(isinstance(end, UsageError) for end in found)
    assert "could not be read in 20 looks" in str(found[0])
    assert f"delete {path} to send it" in str(found[0])
    batches.garbled = False
    assert texts(ask(fresh())) == ANSWERS
    assert len(batches.made) == 1


def test_results_that_are_gone_are_not_paid_for_twice(fresh: Callable[..., Batched], batches: Batches):
    batches.gone = True
    found = ask(fresh())
    assert all(isinstance(end, UsageError) and "delete its file" in str(end) for end in found)
    assert len(batches.made) == 1


@pytest.mark.parametrize("path", ["files", "batches"])
def test_what_is_sent_and_answered_without_an_id_is_looked_for(
    backend: str, fresh: Callable[..., Batched], batches: Batches, path: str
):
    if (backend, path) == ("anthropic_batch", "files"):
        pytest.skip("no files go up there")
    batches.without_id = path
    assert texts(ask(fresh())) == ["Lost"] * 5
    batches.without_id = ""
    assert texts(ask(fresh())) == ANSWERS
    assert len(batches.made) == 1


def test_a_batch_that_the_service_has_no_more_is_not_paid_for_twice(fresh: Callable[..., Batched], batches: Batches):
    ask(fresh())
    batches.made.clear()
    found = ask(fresh())
    assert all(isinstance(end, UsageError) and "delete its file" in str(end) for end in found)
    assert not batches.made


def test_the_batch_is_written_down_with_its_id_before_it_is_waited_for(
    fresh: Callable[..., Batched], batches: Batches, tmp_path: Path
):
    batches.polls = 10**6
    break_off(fresh())
    (path,) = (tmp_path / "batches").glob("*.json")
    found = json.loads(path.read_text())
    assert found["batch_id"] == next(iter(batches.made))
    assert set(found["custom_ids"]) == {custom_id(found["service"], request) for request in ASKS}


def test_replies_have_the_name_of_the_backend_without_batches(backend: str, fresh: Callable[..., Batched]):
    assert fresh().name.startswith({"anthropic_batch": "anthropic_api:", "openai_batch": "openai_compatible:"}[backend])
    assert backend in BACKENDS


def test_samples_that_differ_in_their_seed_alone_are_two_requests(fresh: Callable[..., Batched], batches: Batches):
    assert len(ask(fresh(), [ASKS[0], replace(ASKS[0], seed=1)])) == 2
    (batch,) = batches.made.values()
    assert len(batch.get("requests", [0, 0])) == 2


CHILD = """
import asyncio, sys
from pathlib import Path
from autointerp.llm import Request, open_backend
backend, url, folder = sys.argv[1:]
llm = open_backend(backend, model="tiny", folder=Path(folder), base_url=url, gather_s=0.02, poll_s=0.02)
asks = [Request.ask("be brief", f"question {i}") for i in range(5)]
async def main():
    await asyncio.gather(*(llm.complete(ask) for ask in asks))
asyncio.run(main())
"""


@pytest.mark.parametrize("n_seen", [1, 2, 4])
def test_a_process_killed_at_any_moment_leaves_nothing_to_pay_twice(
    backend: str, fresh: Callable[..., Batched], batches: Batches, server: FakeServer, tmp_path: Path, n_seen: int
):
    batches.polls = 10**6
    arguments = [backend, server.url + ADDRESS[backend], str(tmp_path / "batches")]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments])
    until = time.monotonic() + 20
    while len(server.seen) < n_seen and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert len(server.seen) >= n_seen
    batches.polls = 0
    assert texts(ask(fresh())) == ANSWERS
    assert len(batches.made) == 1


def test_a_batch_turned_down_as_a_whole_is_told_and_forgotten(server: FakeServer, tmp_path: Path):
    server.openai_batches.turned_down = True
    found = ask(opened("openai_batch", server.url, tmp_path))
    # No excuse for each of its requests: nothing was wrong with them.
    assert all(isinstance(end, UsageError) and "no such endpoint" in str(end) for end in found)
    server.openai_batches.turned_down = False
    assert texts(ask(opened("openai_batch", server.url, tmp_path))) == ANSWERS


def test_a_batch_that_is_not_let_in_is_told_and_forgotten(
    fresh: Callable[..., Batched], server: FakeServer, batches: Batches
):
    llm, submit = fresh(), fresh().service.submit

    async def badly(label: str, requests: Any) -> str:
        raise BadRequest("127.0.0.1 answered 400: no batches for this account")

    llm.service.submit = badly  # pyright: ignore
    found = ask(llm)
    assert all(isinstance(end, UsageError) and "no batches for this account" in str(end) for end in found)
    llm.service.submit = submit  # pyright: ignore
    assert texts(ask(llm)) == ANSWERS
    assert len(batches.made) == 1
