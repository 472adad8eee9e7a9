"""How many of 64 slots of a service that takes 200 ms a call are busy, from the first call to the last.

Run from anywhere: `python bench/interpret_slots.py` (`--quick` to see that it runs); no GPU, two minutes. The service
is a process of its own on this machine. It is asked once by calls alone, each through the store of replies, the ledger,
the limits and the retries that a job has, and once by whole jobs of `monosem score` on the tiny demo, which draw the
contexts and write the tables besides. A busy slot is one in which the service works on a call.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.commands.demo import run_demo
from autointerp.explaining import ExplainConfig, explain
from autointerp.llm import Request
from autointerp.llm.config import LLMConfig, open_llm
from autointerp.sample import SampleConfig
from autointerp.scoring import ScoreConfig, score
from autointerp.tools import ToolsConfig
from bench.harness import Figure, main, write
from bench.mock_llm import service, told
from store.run import find_run

N_SLOTS, LATENCY_S = 64, 0.2
N_CALLS, N_QUICK = 6400, 256
PROMPT = "One of many contexts to judge. " * 40
SAMPLE = SampleConfig(n_explain=6, n_score=40, min_contexts=3, min_docs=2, max_density=0.9, half_window=16)


def measure() -> bool:
    """Write `bench/results/interpret_slots.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few calls, and nothing written")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        ways: dict[str, Callable[[str], None]] = {
            "calls alone": lambda url: calls(url, Path(folder) / "calls", N_QUICK if args.quick else N_CALLS),
            "a job of monosem score": prepared(root, 5 if args.quick else 10**6),
        }
        found = {way: busy(work) for way, work in ways.items()}
    print(json.dumps(found, indent=2))
    if args.quick:
        return True
    figures = [
        Figure(f"slots busy, {way}", told["busy_s"] / (N_SLOTS * told["span_s"]), "", ">= 0.9")
        for way, told in found.items()
    ]
    return write("interpret_slots", figures, n_slots=N_SLOTS, latency_s=LATENCY_S, seen=found)


def llm(url: str) -> LLMConfig:
    """The service, driven as hard as it has slots."""
    return LLMConfig(backend="openai_compatible", model="mock", base_url=url, concurrency=N_SLOTS)


def calls(url: str, root: Path, n: int) -> None:
    """As many different prompts as asked, all at once."""

    async def all_of_them() -> None:
        model = open_llm(llm(url), root)
        asks = (Request.ask(PROMPT, f"{PROMPT} {i}") for i in range(n))
        await asyncio.gather(*(model.complete(ask) for ask in asks))

    asyncio.run(all_of_them())


def prepared(root: Path, n_latents: int) -> Callable[[str], None]:
    """A job on the tiny demo's latents, whose making is not counted."""
    run_demo("tiny", root)
    index = find_run(root, "latest", "index")
    explained = explain(ExplainConfig(explainer="tokens", n_latents=n_latents, sample=SAMPLE), index, root)

    def job(url: str) -> None:
        tools = ToolsConfig(llm=llm(url), per_prompt=2)
        nulls = ("shuffled", "generic", "empty", "unigram")
        score(ScoreConfig(scorer="detection", n_null=0, nulls=nulls, tools=tools), explained, root)

    return job


def busy(work: Callable[[str], None]) -> dict[str, Any]:
    """What a fresh service saw of the work."""
    with service(LATENCY_S, {"": json.dumps({"1": 1, "2": 0})}) as url:
        work(f"{url}/v1")
        return told(url)


if __name__ == "__main__":
    main(measure)
