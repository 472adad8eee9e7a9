"""Every interpretation of an index in rows: who explained, who judged, what came of it, what failed, what it took."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.interpretation.asked import LANGUAGE_MODELS
from app.spending import spend
from autointerp.arms import EXPLANATION, SHUFFLED
from store.run import Run
from store.under_way import Survey


def results(found: Survey, index: str, root: Path) -> list[dict[str, Any]]:
    """A row a run of scores, the newest explanations first; explanations that nobody scored have one without.

    Args:
        found: all runs.
        index: id of the index.
        root: of the runs.
    """
    scores = [run for run in found.of_kind("scores") if run.inputs.get("index") == index]
    rows = []
    for explanations in (run for run in found.of_kind("explanations") if run.inputs.get("index") == index):
        own = [run for run in scores if run.inputs.get("explanations") == explanations.id]
        named = _explained(explanations)
        rows += [named | _scored(run) | _spent(root, [run.id]) for run in own] or [named]
        # What explaining took stands in the first row, so that the column adds up.
        first = rows[-max(1, len(own))]
        first |= _spent(root, [explanations.id, *(run.id for run in own[:1])])
    return rows


def can_be_reported(found: Survey, explanations: str) -> bool:
    """Whether a run of explanations has scores of this version."""
    scores = [run for run in found.of_kind("scores") if run.inputs.get("explanations") == explanations]
    return bool(scores) and all("scorer" in run.config for run in scores)


def _explained(run: Run) -> dict[str, Any]:
    config, results = run.config, run.results
    why = results.get("n_unexplained") or {}
    return {
        "explanations": run.id,
        "explainer": config.get("explainer"),
        "model": _model(config),
        "when": run.manifest["finished_at"][:16].replace("T", " "),
        "n_explained": results.get("n_explained"),
        "n_unexplained": sum(why.values()) if "n_unexplained" in results else None,
        "why": ", ".join(f"{reason}: {n:,}" for reason, n in why.items()) or None,
    }


def _model(config: dict[str, Any]) -> str | None:
    """Which language model was asked, where one was."""
    if not LANGUAGE_MODELS & {config.get("explainer"), config.get("scorer")}:
        return None
    llm = config.get("tools", {}).get("llm", {})
    return " ".join(part for part in (llm.get("backend"), llm.get("model")) if part) or None


def _scored(run: Run) -> dict[str, Any]:
    own, above = run.results.get(EXPLANATION, {}), run.results.get("above", {}).get(SHUFFLED, {})
    judged, unread = run.results.get("n_judged"), run.results.get("n_unparsed")
    asked = (judged or 0) + (unread or 0)
    return {
        "scorer": run.config.get("scorer"),
        "model": _model(run.config),
        "mean": own.get("mean"),
        "mean_95": _ends(own.get("interval")),
        "above": above.get("difference"),
        "above_95": _ends(above.get("interval")),
        "p": above.get("p_value"),
        "n": own.get("n_scored"),
        "n_not_scored": own.get("n_not_scored"),
        "unread": unread / asked if unread is not None and asked else None,
    }


def _ends(interval: Sequence[float] | None) -> str | None:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else None


def _spent(root: Path, runs: Sequence[str]) -> dict[str, Any]:
    found = spend(root, runs)
    if found is None:
        return {}
    return {"calls": found.n_calls, "tokens": found.n_tokens, "usd": found.usd}
