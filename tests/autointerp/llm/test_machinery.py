"""Replies are kept, calls are limited, tried again and paid for: what `open_llm` puts around a backend."""

import asyncio
import json
import sqlite3
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fake_server import BROKEN, BUSY, CUT, DROPPED, FakeServer, Step, status
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.llm import LLM, Reader, Reply, Request
from autointerp.llm.config import LLMConfig, backend_of, open_llm, stacked
from autointerp.llm.errors import BadRequest, Lost, Refused
from autointerp.llm.limited import Limited
from autointerp.llm.retrying import FIRST_S, Retrying
from autointerp.llm.scripted import Scripted
from store.errors import UsageError
from store.ledger import Ledger, Spend
from store.replies import FILE, Replies, replies_file


@dataclass
class Fake:
    """Answers after its latency, or raises what stands first in `raises`."""

    latency_s: float = 0.0
    raises: list[BaseException | None] = field(default_factory=list)
    name: str = "fake:tiny"
    n_calls: int = 0
    n_busy: int = 0
    most_busy: int = 0
    usd: float | None = None

    async def complete(self, request: Request) -> Reply:
        self.n_calls += 1
        self.n_busy += 1
        self.most_busy = max(self.most_busy, self.n_busy)
        try:
            await asyncio.sleep(self.latency_s)
            error = self.raises.pop(0) if self.raises else None
            if error is not None:
                raise error
            text = "answer to " + request.messages[-1].text
            return Reply(text=text, n_tokens_in=len(request.messages[-1].text), n_tokens_out=3, usd=self.usd)
        finally:
            self.n_busy -= 1


class FakeReader(Fake):
    async def logprobs(self, prefix: str, texts: list[str]) -> list[np.ndarray]:
        return [np.zeros(len(text)) for text in texts]

    async def choices(self, pieces: list[str], candidates: list[str]) -> np.ndarray:
        return np.zeros((len(pieces), len(candidates)))


def ask(text: str, **given: object) -> Request:
    return Request.ask("be brief", text, **given)


def answers(llm: LLM, requests: list[Request]) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        return list(await asyncio.gather(*(llm.complete(request) for request in requests)))

    return asyncio.run(all_of_them())


def outcomes(root: Path) -> list[str]:
    with sqlite3.connect(root / FILE) as connection:
        found = [outcome for (outcome,) in connection.execute("SELECT outcome FROM calls ORDER BY id")]
    connection.close()
    return found


class TestStored:
    def test_a_rerun_makes_no_call_and_gives_the_same_replies(self, tmp_path: Path):
        requests = [ask(f"q{i}") for i in range(20)]
        first, again = Fake(), Fake()
        told = answers(stacked(first, LLMConfig(), tmp_path), requests)
        assert answers(stacked(again, LLMConfig(), tmp_path), requests) == told
        assert (first.n_calls, again.n_calls) == (20, 0)

    def test_equal_requests_under_way_are_sent_once(self, tmp_path: Path):
        fake = Fake(latency_s=0.01)
        told = answers(stacked(fake, LLMConfig(), tmp_path), [ask("same")] * 50)
        assert fake.n_calls == 1
        assert len(set(told)) == 1

    def test_a_request_that_differs_in_anything_is_another(self, tmp_path: Path):
        requests = [ask("q"), ask("q", seed=1), ask("q", temperature=1.0), ask("q", max_tokens=9), ask("q", prompt="b")]
        requests += [ask("q", schema="{}"), ask("q", top_logprobs=2), ask("Q"), Request.ask("be long", "q")]
        fake, other = Fake(), Fake(name="fake:other")
        told = answers(stacked(fake, LLMConfig(), tmp_path), requests)
        told += answers(stacked(other, LLMConfig(), tmp_path), requests)
        assert len({reply.key for reply in told}) == fake.n_calls + other.n_calls == 2 * len(requests)

    def test_all_of_a_reply_is_kept(self, tmp_path: Path):
        fake = Scripted(answer=lambda _: "half a pair \ud800 and a nul \0")
        ((told,), (again,)) = (answers(stacked(fake, LLMConfig(), tmp_path), [ask("q")]) for _ in range(2))
        assert told == again
        assert told.key is not None
        kept = Replies(replies_file(tmp_path)).get(told.key)
        assert kept is not None
        assert kept.request["messages"][1]["text"] == "q"

    @pytest.mark.parametrize("column", ["model", "request", "reply"])
    def test_a_damaged_row_is_refused_with_the_way_out(self, tmp_path: Path, column: str):
        answers(stacked(Fake(), LLMConfig(), tmp_path), [ask("q")])
        with sqlite3.connect(tmp_path / FILE) as connection:
            connection.execute(f"UPDATE replies SET {column} = replace({column}, 'n', 'm')")
        connection.close()
        with pytest.raises(UsageError, match=r"damaged: take it out.*DELETE FROM replies"):
            answers(stacked(Fake(), LLMConfig(), tmp_path), [ask("q")])

    def test_one_who_gives_up_does_not_take_the_reply_from_another(self, tmp_path: Path):
        async def two() -> Reply:
            llm = stacked(Fake(latency_s=0.02), LLMConfig(), tmp_path)
            first = asyncio.create_task(llm.complete(ask("q")))
            second = asyncio.create_task(llm.complete(ask("q")))
            await asyncio.sleep(0.005)
            first.cancel()
            return await second

        assert asyncio.run(two()).text == "answer to q"

    def test_when_all_give_up_the_call_ends_and_what_it_may_have_cost_stays_taken(self, tmp_path: Path):
        fake = Fake(latency_s=10.0)

        async def give_up() -> None:
            llm = stacked(fake, LLMConfig(), tmp_path, "j")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await llm.complete(ask("q"))
            await asyncio.sleep(0)

        asyncio.run(give_up())
        assert fake.n_busy == 0
        assert outcomes(tmp_path) == ["lost"]
        assert Ledger(replies_file(tmp_path)).spent("j").n_tokens > 256

    def test_only_a_reader_stays_a_reader(self, tmp_path: Path):
        assert isinstance(stacked(FakeReader(), LLMConfig(), tmp_path), Reader)
        assert not isinstance(stacked(Fake(), LLMConfig(), tmp_path), Reader)
        assert not isinstance(open_llm(LLMConfig(), tmp_path), Reader)


class TestTriedAgain:
    def test_busy_broken_dropped_and_cut_replies_lose_nothing(
        self, tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("autointerp.llm.retrying.FIRST_S", 0.01)
        server.script.extend([BUSY, BROKEN, DROPPED, CUT, Step(wait_s=2.5), status(503)] * 3)
        cfg = LLMConfig(backend="openai_compatible", model="tiny", base_url=server.url + "/v1", timeout_s=2.0, tries=30)
        told = answers(open_llm(cfg, tmp_path), [ask(f"q{i}") for i in range(40)])
        assert [reply.text for reply in told] == [f"answer to q{i}" for i in range(40)]
        found = Counter(outcomes(tmp_path))
        assert found["answered"] == 40
        # A machine under load may be too slow for some of the others, too.
        assert found["lost"] >= 9
        assert found["lost"] + found["refused"] >= 18

    def test_waits_as_long_as_the_service_asks_and_a_random_part_more(self):
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        fake = Fake(raises=[Refused("busy", 7.0), Refused("busy"), Refused("busy")])
        answers(Retrying(fake, 4, sleep=sleep, seed=0), [ask("q")])
        assert 7.0 <= slept[0] <= 7.0 + FIRST_S
        assert 0 <= slept[1] <= 2 * FIRST_S
        assert 0 <= slept[2] <= 4 * FIRST_S

    def test_says_what_is_kept_after_the_last_try(self):
        fake = Fake(raises=[Refused("busy", 0.0)] * 3)
        with pytest.raises(UsageError, match=r"3 tries \(last: busy\): the replies that came are kept"):
            answers(Retrying(fake, 3), [ask("q")])
        assert fake.n_calls == 3

    def test_does_not_sit_out_a_day(self):
        with pytest.raises(UsageError, match="left alone for 86,400 s"):
            answers(Retrying(Fake(raises=[Refused("quota", 86_400.0)]), 3), [ask("q")])

    def test_a_bad_request_is_sent_once(self):
        fake = Fake(raises=[BadRequest("no")])
        with pytest.raises(BadRequest):
            answers(Retrying(fake, 3), [ask("q")])
        assert fake.n_calls == 1


class TestLimited:
    def test_keeps_every_slot_busy_while_there_is_work(self):
        under_way: deque[asyncio.Future[None]] = deque()

        class Held(Fake):
            async def complete(self, request: Request) -> Reply:
                under_way.append(asyncio.get_running_loop().create_future())
                await under_way[-1]
                return await super().complete(request)

        async def seen() -> list[int]:
            limited, found = Limited(Held(), 64), []
            calls = [asyncio.ensure_future(limited.complete(ask(f"q{i}"))) for i in range(64 * 5)]
            # Time goes in steps, whatever the clock says: all that can begins, and then the oldest call ends.
            while not all(call.done() for call in calls):
                found.append(len(under_way))
                if under_way:
                    under_way.popleft().set_result(None)
                for _ in range(20):
                    await asyncio.sleep(0)
            return found

        assert asyncio.run(seen())[1:] == [64] * (64 * 4 + 1) + list(range(63, 0, -1))

    def test_halves_once_for_all_refusals_of_a_round_and_grows_by_one_a_round(self):
        fake = Fake(raises=[Refused("busy")] * 16)

        async def run() -> list[float]:
            limited = Limited(fake, 16)
            await asyncio.gather(*(limited.complete(ask(f"q{i}")) for i in range(16)), return_exceptions=True)
            seen = [limited.allowed]
            for _ in range(8):
                await limited.complete(ask("q"))
            return [*seen, limited.allowed]

        halved, grown = asyncio.run(run())
        assert halved == 8.0
        assert 8.9 < grown <= 9.0

    def test_sends_nothing_until_the_time_asked_for_is_over(self):
        sent: list[float] = []

        @dataclass
        class Timed(Fake):
            async def complete(self, request: Request) -> Reply:
                sent.append(asyncio.get_running_loop().time())
                return await super().complete(request)

        async def run() -> None:
            limited = Limited(Timed(raises=[Refused("busy", 0.1)]), 4)
            with pytest.raises(Refused):
                await limited.complete(ask("q"))
            await asyncio.gather(*(limited.complete(ask(f"q{i}")) for i in range(4)))

        asyncio.run(run())
        assert min(sent[1:]) - sent[0] > 0.095

    def test_a_cancelled_call_gives_its_slot_back(self):
        async def run() -> int:
            limited = Limited(Fake(latency_s=0.01), 2)
            tasks = [asyncio.create_task(limited.complete(ask(f"q{i}"))) for i in range(10)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return limited.n_busy

        assert asyncio.run(run()) == 0


class TestBudget:
    @settings(max_examples=40, deadline=None)
    @given(
        n_requests=st.integers(1, 30),
        most=st.integers(0, 12_000),
        unit=st.sampled_from(["calls", "tokens", "usd"]),
        scope=st.sampled_from(["job", "day"]),
        fails=st.lists(st.sampled_from([None, Lost("gone"), BadRequest("no")]), max_size=20),
        n_jobs=st.integers(1, 3),
    )
    def test_is_never_overshot(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        n_requests: int,
        most: int,
        unit: str,
        scope: str,
        fails: list[BaseException | None],
        n_jobs: int,
    ):
        root = tmp_path_factory.mktemp("budget")
        most = most // 800 if unit == "calls" else most
        cap = most / 1e6 if unit == "usd" else most
        prices = {"usd_per_million_in": 1.0, "usd_per_million_out": 2.0}
        cfg = LLMConfig(concurrency=8, tries=2, **{f"max_{unit}_per_{scope}": cap}, **prices)

        async def run() -> None:
            llms = [stacked(Fake(raises=list(fails)), cfg, root, f"job{i}") for i in range(n_jobs)]
            calls = [llm.complete(ask(f"{llm} {i}")) for llm in llms for i in range(n_requests)]
            await asyncio.gather(*calls, return_exceptions=True)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("autointerp.llm.retrying.FIRST_S", 0.0)
            asyncio.run(run())
        query = "SELECT count(*), coalesce(sum(n_tokens_in + n_tokens_out), 0), coalesce(sum(usd), 0) FROM calls"
        groups = [f"{query} WHERE job = 'job{i}'" for i in range(n_jobs)] if scope == "job" else [query]
        for group in groups:
            ((n_calls, n_tokens, usd),) = replies_file(root).rows(group)
            spent = {"calls": n_calls, "tokens": n_tokens, "usd": usd - 1e-12}[unit]
            assert spent <= cap

    def test_says_what_was_spent_which_cap_and_how_to_go_on(self, tmp_path: Path):
        cfg = LLMConfig(max_calls_per_job=2)
        llm = stacked(Fake(), cfg, tmp_path, "j")
        answers(llm, [ask("a"), ask("b")])
        with pytest.raises(UsageError) as caught:
            answers(llm, [ask("c")])
        assert str(caught.value) == (
            "2 calls spent by job j, the next call may take 1 calls and max_calls_per_job allows 2 calls: raise it, or"
            " give another job; the replies that came are kept and are not asked for again"
        )

    def test_what_is_stored_costs_nothing(self, tmp_path: Path):
        answers(stacked(Fake(), LLMConfig(), tmp_path, "j"), [ask("a")])
        answers(stacked(Fake(), LLMConfig(max_calls_per_job=1), tmp_path, "j"), [ask("a")] * 3)
        assert Ledger(replies_file(tmp_path)).spent("j").n_calls == 1

    def test_a_call_waits_for_what_those_under_way_give_back(self, tmp_path: Path):
        fake = Fake(latency_s=0.001)
        cfg = LLMConfig(max_tokens_per_job=600)
        told = answers(stacked(fake, cfg, tmp_path, "j"), [ask(f"q{i}") for i in range(20)])
        assert len(told) == 20
        assert Ledger(replies_file(tmp_path)).spent("j") == Spend(
            n_calls=20, n_tokens=sum(5 + (i > 9) for i in range(20))
        )

    def test_the_service_s_own_bill_goes_before_the_price(self, tmp_path: Path):
        prices = {"usd_per_million_in": 1.0, "usd_per_million_out": 2.0}
        answers(stacked(Fake(), LLMConfig(**prices), tmp_path, "priced"), [ask("ab")])
        answers(stacked(Fake(usd=0.25), LLMConfig(**prices), tmp_path, "billed"), [ask("abc")])
        ledger = Ledger(replies_file(tmp_path))
        assert ledger.spent("priced").usd == pytest.approx(2e-6 + 6e-6)
        assert ledger.spent("billed").usd == 0.25

    def test_tells_the_spend_so_far(self, tmp_path: Path):
        seen: list[Spend] = []
        llm = open_llm(LLMConfig(), tmp_path, "j", on_spend=seen.append)
        answers(llm, [ask(f"q{i}") for i in range(3)])
        assert [spend.n_calls for spend in seen][-1] == 3
        assert seen[-1].n_open == 0


class TestConfig:
    def test_the_scripted_judge_of_a_job_keeps_no_prompt(self):
        for backend, n_kept in ((backend_of(LLMConfig()), 0), (Scripted(), 1)):
            answers(backend, [ask("q")])
            assert isinstance(backend, Scripted)
            assert len(backend.requests) == n_kept

    def test_it_is_json(self):
        cfg = LLMConfig(
            backend="openai_compatible", model="m", max_usd_per_day=1.0, usd_per_million_in=1.0, usd_per_million_out=2.0
        )
        assert LLMConfig(**json.loads(json.dumps(asdict(cfg)))) == cfg

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"backend": "telepathy"}, "no LLM backend 'telepathy'"),
            ({"model": "m"}, "model is 'm', and the backend scripted takes none"),
            ({"concurrency": 0}, "concurrency is 0: choose more than 0"),
            ({"max_calls_per_job": -1}, "max_calls_per_job is -1"),
            ({"backend": "openai_compatible", "model": "m", "max_usd_per_day": 1.0}, "the price is not known"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, tmp_path: Path, given: dict, said: str):
        with pytest.raises(UsageError, match=said):
            open_llm(LLMConfig(**given), tmp_path)

    def test_the_key_is_neither_stored_nor_shown(
        self, tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("MONOSEM_LLM_KEY", "very-secret-key")
        server.key = "very-secret-key"
        cfg = LLMConfig(backend="openai_compatible", model="tiny", base_url=server.url + "/v1")
        llm = open_llm(cfg, tmp_path)
        answers(llm, [ask("q")])
        assert "very-secret-key" not in repr(llm) + repr(vars(llm)) + repr(cfg)
        assert all(b"very-secret-key" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
