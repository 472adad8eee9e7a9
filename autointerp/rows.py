"""Explanations and scores as rows of the tables that an index publishes, and back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autointerp.characters import whole_in
from autointerp.latent import Explanation, Judged, Score, Trial, Unexplained

Rows = list[dict[str, Any]]


def columns(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """Rows by column, ready for a table: models write half surrogate pairs, which no table can hold."""
    return {name: [whole_in(row[name]) for row in rows] for name in names}


def explanation_row(explanation: Explanation, run: str) -> dict[str, Any]:
    """As the table `explanations` has it."""
    seen = explanation.doc_ids
    return {
        "latent": explanation.latent,
        "explainer": explanation.explainer,
        "text": explanation.text,
        "input_text": explanation.input_text,
        "output_text": explanation.output_text,
        "method": explanation.method,
        "n_contexts": explanation.n_contexts,
        "n_docs": None if seen is None else len(seen),
        "doc_ids": None if seen is None else sorted(seen),
        "prompt": explanation.prompt,
        "quoted": explanation.quoted,
        "calls": list(explanation.calls),
        "run": run,
    }


def explanation_of(row: Mapping[str, Any]) -> Explanation:
    """From such a row."""
    return Explanation(
        latent=row["latent"],
        explainer=row["explainer"],
        text=row["text"],
        input_text=row["input_text"],
        method=row["method"],
        n_contexts=row["n_contexts"],
        doc_ids=None if row["doc_ids"] is None else frozenset(row["doc_ids"]),
        prompt=row["prompt"],
        calls=tuple(row["calls"]),
        quoted=row["quoted"],
        output_text=row["output_text"],
    )


def candidate_rows(explanation: Explanation, run: str) -> Rows:
    """As the table `candidates` has those it was chosen from, the winner first."""
    return [
        {
            "latent": explanation.latent,
            "explainer": explanation.explainer,
            "rank": rank,
            "text": each.text,
            "seed": each.seed,
            "value": each.value,
            "n_judged": each.n_judged,
            "run": run,
        }
        for rank, each in enumerate(explanation.candidates)
    ]


def cluster_rows(latents: Sequence[int], medoid: int, cosine: float, run: str) -> Rows:
    """As the table `clusters` has latents that were explained together."""
    of = {"medoid": medoid, "n_latents": len(latents), "cosine": cosine, "run": run}
    return [{"latent": latent, **of} for latent in latents]


def unexplained_row(unexplained: Unexplained, run: str) -> dict[str, Any]:
    """As the table `unexplained` has it."""
    return {
        "latent": unexplained.latent,
        "explainer": unexplained.explainer,
        "reason": unexplained.reason,
        "calls": list(unexplained.calls),
        "run": run,
    }


def score_row(scorer: str, arm: str, explanation: Explanation, trial: Trial, found: Score, run: str) -> dict[str, Any]:
    """As the table `scores` has it."""
    low, high = found.interval or (None, None)
    worst, best = found.bounds or (None, None)
    return {
        "latent": trial.latent,
        "explainer": explanation.explainer,
        "scorer": scorer,
        "arm": arm,
        "value": found.value,
        "ci_low": low,
        "ci_high": high,
        "worst": worst,
        "best": best,
        "chance": found.chance,
        "n_judged": found.n_judged,
        "n_unparsed": found.n_unparsed,
        "n_asked_twice": sum(example.n_asked > 1 for example in found.examples),
        "n_docs": len(trial.doc_ids),
        "n_docs_shared": None if explanation.doc_ids is None else len(trial.doc_ids & explanation.doc_ids),
        "base_rate": trial.base_rate,
        "prompt": found.prompt,
        "run": run,
    }


def metric_rows(row: Mapping[str, Any], found: Score) -> Rows:
    """As the table `score_metrics` has the other figures of the score in `row`."""
    of = {name: row[name] for name in ("latent", "explainer", "scorer", "arm", "run")}
    return [{**of, "metric": name, "value": value} for name, value in found.metrics.items()]


def example_rows(row: Mapping[str, Any], found: Score) -> Rows:
    """As the table `examples` has what the score in `row` was computed from."""
    of = {name: row[name] for name in ("latent", "explainer", "scorer", "arm", "run")}
    return [{**of, "number": i, **_example(judged)} for i, judged in enumerate(found.examples)]


def _example(judged: Judged) -> dict[str, Any]:
    window = judged.window
    return {
        "kind": judged.kind,
        "doc_id": None if window is None else window.doc_id,
        "text": judged.text or ("" if window is None else window.text),
        "token": judged.token,
        "truth": judged.truth,
        "answer": judged.answer,
        "probability": judged.probability,
        "n_asked": judged.n_asked,
        "call": judged.call,
    }
