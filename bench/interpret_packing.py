"""What it costs and what it saves to ask a judge about 25 contexts in a prompt rather than about 5, or each alone.

Run from anywhere: `python bench/interpret_packing.py [--out RUNS]`; ten minutes on two cores, and the demo's where RUNS
has it not. The width of an interval at equal calls, and at equal prompt tokens, follows from the rates of a planted
judge (70% of active and 20% of silent contexts are called active), whom packing cannot mislead. What it costs in
accuracy depends on the judge; here that is SmolLM2 of 135 M parameters, in detection of latents of the demo, as
explained by counting, and of kinds of documents, explained by hand, which are plain truths. Replies are held to their
form; how often they cannot be read where they are not is measured on one latent. The AUROC is of the judge's belief: it
tells more than a yes or no of a judge who mostly says yes.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activations.corpora import CORPORA
from autointerp.latent import Explanation, Score, Trial
from autointerp.llm import LLM, Reply, Request
from autointerp.llm.local import Local
from autointerp.rows import explanation_of
from autointerp.sample import Sampler
from autointerp.scorers.detection import DetectionScorer
from autointerp.scoring import explain_config
from autointerp.statistics import mean_of_shares
from autointerp.statistics.across import clustered_mean
from bench.harness import Figure, main, write
from bench.smollm2_runs import smollm2_runs
from store.feature_index import FeatureIndex
from store.index import parts_of
from store.latents import Window
from store.run import find_run

PACKED = (1, 5, 25)
N_LATENTS, N_EACH, N_FREE = 3, 12, 1
TOP_LOGPROBS = 5
KINDS = {
    "film reviews": "Opinions about a film: reviews that say whether a movie is good or bad",
    "speeches": "Political speeches about the nation, its government and its laws",
    "Grimm tales": "Fairy tales with kings, animals and magic",
    "film plots": "Summaries of what happens in a film",
}
"""Sources of the English corpus, explained; contexts of the others are silent."""
N_WORDS, FIRST_WORD = 16, 40
"""Of a document, those that are a context."""
TPR, FPR = 0.7, 0.2
N_CALLS, N_TOKENS, N_DRAWS = 20, 10_000, 2000


class Trialled(NamedTuple):
    """What is judged."""

    explanation: Explanation
    trial: Trial


@dataclass
class Counted:
    """A judge whose calls and tokens are counted."""

    llm: LLM
    free: bool = False
    """Whether replies are not held to their form."""
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    name: str = "counted"

    async def complete(self, request: Request) -> Reply:
        """The judge's."""
        reply = await self.llm.complete(replace(request, schema=None) if self.free else request)
        self.calls += 1
        self.tokens_in += reply.n_tokens_in
        self.tokens_out += reply.n_tokens_out
        return reply


def measure() -> bool:
    """Latents and kinds of documents at every packing, then what the widths are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    parser.add_argument("--n-latents", type=int, default=N_LATENTS)
    args = parser.parse_args()
    llm = Local()
    with smollm2_runs(args.out) as root:
        latents = of_demo(root, args.n_latents)
    asked = {"latents": latents, "kinds of documents": of_kinds()}
    rows = [judged(llm, what, trials, n) for what, trials in asked.items() for n in PACKED]
    free = [judged(llm, "latents, free replies", latents[:N_FREE], n, free=True) for n in PACKED]
    per_context = {row["packed"]: row["tokens_in"] / row["contexts"] for row in rows if row["what"] == "latents"}
    figures = [figure for row in rows for figure in figures_of(row)]
    figures += [Figure(f"{row['what']}, {row['packed']} a prompt: unparsed", row["unparsed"], "share") for row in free]
    settings = {"n_latents": len(latents), "n_each": N_EACH, "tpr": TPR, "fpr": FPR, "model": llm.name}
    return write("interpret_packing", [*figures, *widths(per_context)], **settings, rows=[*rows, *free])


def of_demo(root: Path, n: int) -> list[Trialled]:
    """The first latents that the demo explains."""
    run, index = find_run(root, "latest", "explanations"), find_run(root, "latest", "index")
    sampler = Sampler(FeatureIndex(index.folder), replace(explain_config(run).sample, n_score=N_EACH))
    found = [explanation_of(row) for row in parts_of(run.folder, "explanations").sort_by("latent").to_pylist()[:n]]
    return [Trialled(each, sampler.trial(each.latent, DetectionScorer.wants)) for each in found]


def of_kinds() -> list[Trialled]:
    """A trial for each kind of document: some of it, and as many of all other sources in turn."""
    texts = {source.name: list(islice(map(_context, source.open(0)), N_EACH)) for source in CORPORA["english"]()}
    return [_of_kind(i, kind, texts) for i, kind in enumerate(KINDS)]


def _of_kind(number: int, kind: str, texts: Mapping[str, Sequence[str]]) -> Trialled:
    in_turn = zip_longest(*(of for name, of in texts.items() if name != kind))
    others = [text for together in in_turn for text in together if text is not None]
    trial = Trial.of(number, [*map(_window, texts[kind])], [*map(_window, others[:N_EACH])])
    order = np.random.default_rng(number).permutation(len(trial.items))
    explanation = Explanation(number, "given", KINDS[kind], KINDS[kind], "given", None, None)
    return Trialled(explanation, replace(trial, items=tuple(trial.items[i] for i in order), seed=number))


def _context(document: Any) -> str:
    words = document.text.split()
    first = min(len(words) // 2, FIRST_WORD)
    return " ".join(words[first : first + N_WORDS])


def _window(text: str) -> Window:
    return Window("given", 1.0, 0, "", "", "train", 0, 0, 0, (text,), (0,), (1.0,))


def judged(llm: LLM, what: str, trials: Sequence[Trialled], n_packed: int, *, free: bool = False) -> dict[str, Any]:
    """One packing of some trials, with what it took."""
    counted, started = Counted(llm, free), time.perf_counter()
    scorer = DetectionScorer(llm=counted, n_packed=n_packed, top_logprobs=0 if free else TOP_LOGPROBS)
    scores = [asyncio.run(scorer(*each)) for each in trials]
    n_contexts = sum(score.n_judged + score.n_unparsed for score in scores)
    return {
        "what": what,
        "packed": n_packed,
        "contexts": n_contexts,
        "unparsed": sum(score.n_unparsed for score in scores) / n_contexts,
        "calls": counted.calls,
        "tokens_in": counted.tokens_in,
        "tokens_out": counted.tokens_out,
        "seconds": time.perf_counter() - started,
        "latents": len(scores),
        "said_yes": _said_yes(scores),
        "balanced_accuracy": over_latents(scores, "balanced_accuracy"),
        "auroc": over_latents(scores, "auroc"),
        "of_each": [
            {"value": score.value, "interval": score.interval, "auroc": score.metrics.get("auroc")} for score in scores
        ],
    }


def _said_yes(scores: Sequence[Score]) -> float | None:
    said = [each.answer for score in scores for each in score.examples if each.answer is not None]
    return float(np.mean(said)) if said else None


def over_latents(scores: Sequence[Score], metric: str) -> dict[str, Any]:
    """Mean and 95% interval, clustered by latent."""
    found = clustered_mean([score.metrics.get(metric) for score in scores], range(len(scores)))
    return {"mean": found.value, "interval": found.interval}


def figures_of(row: Mapping[str, Any]) -> list[Figure]:
    """Of one packing."""
    called = f"{row['what']}, {row['packed']} a prompt"
    figures = [
        Figure(f"{called}: calls of a latent", row["calls"] / row["latents"], ""),
        Figure(f"{called}: prompt tokens of a context", row["tokens_in"] / row["contexts"], ""),
        Figure(f"{called}: answers that are yes", row["said_yes"] or 0.0, "share"),
        Figure(f"{called}: unparsed", row["unparsed"], "share"),
    ]
    for metric, name in (("balanced_accuracy", "balanced accuracy"), ("auroc", "AUROC of the belief")):
        found = row[metric]
        if found["mean"] is not None:
            figures.append(Figure(f"{called}: {name}", found["mean"], ""))
        if found["interval"] is not None:
            figures += [
                Figure(f"{called}: {name}, 95% {end}", value, "")
                for end, value in zip(("from", "to"), found["interval"], strict=True)
            ]
    return figures


def widths(per_context: Mapping[int, float]) -> list[Figure]:
    """Of the interval of one latent's balanced accuracy, where packing misleads nobody.

    Args:
        per_context: prompt tokens of a context at each packing.
    """
    called = f"width of a latent's 95% interval at {N_CALLS} calls"
    at_calls = [Figure(f"{called}, {n} a prompt", mean_width(N_CALLS * n // 2), "") for n in per_context]
    called = f"width of a latent's 95% interval at {N_TOKENS:,} prompt tokens"
    fitting = {n: int(N_TOKENS / tokens / 2) for n, tokens in per_context.items()}
    return [*at_calls, *(Figure(f"{called}, {n} a prompt", mean_width(n_each), "") for n, n_each in fitting.items())]


def mean_width(n_each: int) -> float:
    """Over judges' luck, with `n_each` contexts of either side."""
    right = np.random.default_rng(n_each).binomial(n_each, (TPR, 1 - FPR), (N_DRAWS, 2))
    ends = np.array([mean_of_shares((int(a), int(b)), (n_each, n_each)) for a, b in right])
    return float(np.ptp(ends, axis=1).mean())


if __name__ == "__main__":
    main(measure)
