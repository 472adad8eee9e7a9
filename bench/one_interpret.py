"""Latents explained and scored, in a process of its own: `python -m bench.one_interpret ROOT N_LATENTS`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from autointerp import explaining, scoring
from autointerp.explaining import ExplainConfig
from autointerp.llm.config import LLMConfig, stacked
from autointerp.llm.scripted import Scripted
from autointerp.sample import SampleConfig, Sampler
from autointerp.scoring import ScoreConfig
from autointerp.tools import Tools, ToolsConfig
from bench.one_harvest import peak_gb
from store.feature_index import FeatureIndex
from store.index import publish
from store.run import Run, find_run

SAMPLE = SampleConfig(n_explain=3, n_score=2, min_contexts=3, min_docs=2, same_token_share=0.0, neighbour_share=0.0)
"""Few contexts: what is held of each latent is what counts here."""
LLM = LLMConfig(backend="scripted")


class Forgetful(list[Any]):
    """`Scripted` remembers, for tests, whatever it was asked; services do not."""

    def append(self, item: Any) -> None:
        """Nothing."""


class Peaks:
    """The largest resident set of each stretch of work, and of each publication after it."""

    def __init__(self) -> None:
        self.work: list[float] = []
        self.published: list[float] = []

    def publish(self, index: Run) -> None:
        """In place of `publish`: between two looks at the peak."""
        self.work.append(peak_gb())
        forget_peak()
        publish(index)
        self.published.append(peak_gb())
        forget_peak()


def forget_peak() -> None:
    """What `peak_gb` tells begins anew, from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def main(root: Path, n_latents: int) -> None:
    """Explain and score, and a line of JSON that says what it took."""
    peaks, index = Peaks(), find_run(root, "latest", "index")
    explaining.publish = scoring.publish = peaks.publish
    sampler = Sampler(FeatureIndex(index.folder), SAMPLE)
    tools = Tools(ToolsConfig(llm=LLM), root, sampler)
    tools.llm = stacked(Scripted(requests=Forgetful()), LLM, root)
    forget_peak()
    before, started = peak_gb(), time.perf_counter()
    explained = explaining.explain(ExplainConfig(explainer="tokens", n_latents=n_latents, sample=SAMPLE), index, root)
    explain_s = time.perf_counter() - started
    cfg = ScoreConfig(scorer="detection", nulls=("shuffled",), tools=tools.cfg)
    scored = scoring.score(cfg, explained, root, tools=tools)
    told = {
        "before_gb": before,
        "explain_gb": peaks.work[0],
        "score_gb": peaks.work[1],
        "publish_gb": max(peaks.published),
        "explain_s": explain_s,
        "seconds": time.perf_counter() - started,
        "n_explained": explained.results["n_explained"],
        "n_scored": scored.results["explanation"]["n_scored"],
        "n_shuffled": scored.results["shuffled"]["n_scored"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
