"""Every scorer with a language model of 135 M parameters in this process, on the demo's dictionary: what it is worth.

Run from anywhere: `python bench/interpret_local.py [--out RUNS] [--n-latents 8]`; about five minutes a latent on two
cores. A demo that was run in RUNS already is not run again, and a benchmark that was stopped goes on where it was.
Explanations are written by the same model (`default`), and by counting (`tokens`), which shows the judge apart from the
writer. `surprisal` and the scorers that steer ask the dictionary's own model too.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.log import progress
from autointerp.explaining import ExplainConfig
from autointerp.interpret import InterpretConfig, interpret
from autointerp.llm.config import LLMConfig
from autointerp.sample import SampleConfig
from autointerp.scorers import SCORERS
from autointerp.tools import ToolsConfig
from bench.harness import Figure, main, write
from bench.smollm2_runs import smollm2_runs
from store.run import Run, find_run

NAME = "interpret_local"
N_LATENTS, N_EACH, PER_PROMPT = 8, 8, 8
BY_COUNTING = ("detection", "fuzzing")
"""Scorers of explanations that no language model wrote."""
CONFIG = InterpretConfig(
    explain=ExplainConfig(
        explainer="default",
        sample=SampleConfig(n_explain=N_EACH, n_score=N_EACH),
        tools=ToolsConfig(llm=LLMConfig(backend="local"), per_prompt=PER_PROMPT),
    ),
    scorers=tuple(SCORERS),
    nulls=("shuffled",),
)


def measure() -> bool:
    """Both explainers' words on the same latents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    parser.add_argument("--n-latents", type=int, default=N_LATENTS)
    args = parser.parse_args()
    with smollm2_runs(args.out) as root:
        index = find_run(root, "latest", "index")
        written = replace(CONFIG, explain=replace(CONFIG.explain, n_latents=args.n_latents))
        counted = replace(written, explain=replace(written.explain, explainer="tokens"), scorers=BY_COUNTING)
        found = {
            f"{cfg.explain.explainer}, {run.config['scorer']}": run
            for cfg in (written, counted)
            for run in interpret(cfg, index, root, progress)[1]
        }
        figures = [figure for what, run in found.items() for figure in figures_of(what, run)]
        rows = [row_of(what, run) for what, run in found.items()]
    settings = {"n_latents": args.n_latents, "n_each": N_EACH, "per_prompt": PER_PROMPT}
    return write(NAME, figures, **settings, model="SmolLM2-135M-Instruct", rows=rows)


def figures_of(what: str, run: Run) -> list[Figure]:
    """The mean score of a run, and what it has above the shuffled null."""
    own, above = run.results["explanation"], run.results["above"].get("shuffled")
    figures = [] if own["mean"] is None else [Figure(f"{what}: mean", own["mean"], "")]
    if above and above["difference"] is not None:
        figures.append(Figure(f"{what}: above shuffled", above["difference"], ""))
    return figures


def row_of(what: str, run: Run) -> dict[str, Any]:
    """All that a run tells, for those who read the file."""
    kept = ("explanation", "shuffled", "above", "n_unparsed", "n_judged", "denominators")
    return {"what": what, **{name: run.results[name] for name in kept if name in run.results}}


if __name__ == "__main__":
    main(measure)
