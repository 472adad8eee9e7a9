"""A job put to the fake service: the judge of known errors answers there, as a model behind HTTP would."""

import json
from pathlib import Path
from typing import Any

from autointerp.explaining import ExplainConfig
from autointerp.interpret import InterpretConfig, interpret
from autointerp.llm import Request
from autointerp.llm.config import LLMConfig
from autointerp.llm.planted import Planted
from autointerp.prompts import Prompt, explain_contexts, judging
from autointerp.sample import SampleConfig
from autointerp.tools import ToolsConfig
from store.index import parts_of
from store.run import Run, find_run

IDS = {
    prompt.system: prompt.tag
    for module in (judging, explain_contexts)
    for prompt in vars(module).values()
    if isinstance(prompt, Prompt)
}
SAMPLE = SampleConfig(n_explain=6, n_score=6, min_contexts=3, min_docs=2, max_density=0.5, half_window=6)
TABLES = {"explanations": ("explanations", "candidates"), "scores": ("scores", "score_metrics", "examples")}
MADE_BY = {"run", "call", "calls", "n_calls", "method"}
"""Columns that tell the run and the service, not what was found."""


def planted(body: dict[str, Any]) -> str:
    """What the planted judge says to the body of a request for a completion."""
    last = body["messages"][-1]["content"]
    text = body["system"][0]["text"] if "system" in body else body["messages"][0]["content"]
    prompt = next((tag for known, tag in IDS.items() if text.startswith(known)), "")
    return Planted(tpr=0.8, fpr=0.2)(Request.ask(text, last, prompt=prompt))


def config(url: str, backend: str = "openai_compatible", *, n_latents: int = 4, **llm: Any) -> InterpretConfig:
    """Explain and judge by two scorers, with nulls."""
    address = url if backend.startswith("anthropic") else url + "/v1"
    tools = ToolsConfig(llm=LLMConfig(backend=backend, model="tiny", base_url=address, **llm), per_prompt=4)
    explain = ExplainConfig(explainer="default", n_latents=n_latents, sample=SAMPLE, tools=tools)
    return InterpretConfig(explain=explain, scorers=("detection", "fuzzing"), nulls=("shuffled", "generic"))


def run(cfg: InterpretConfig, root: Path) -> list[Run]:
    """Both jobs; the runs that they made."""
    explanations, scores = interpret(cfg, find_run(root, "latest", "index"), root)
    return [explanations, *scores]


def rows(runs: list[Run]) -> dict[str, list[str]]:
    """What the runs found, without what tells when and by whose calls."""
    found: dict[str, list[str]] = {}
    for each in runs:
        for table in TABLES[each.kind]:
            told = parts_of(each.folder, table).to_pylist()
            kept = [json.dumps({k: v for k, v in row.items() if k not in MADE_BY}, default=str) for row in told]
            found[f"{each.kind} {each.config.get('scorer', '')} {table}"] = sorted(kept)
    return found
