"""What stands behind a score: each question, its truth, its answer, and the replies these were read from."""

from typing import Any

from store.feature_index import FeatureIndex

JUDGED = """
SELECT explainer, scorer, arm, number, kind, doc_id, text, token, truth, answer, probability, n_asked, call, run
FROM examples WHERE latent = ? ORDER BY explainer, scorer, run, arm, number
"""
REPLIES = """
SELECT key, model, prompt, request, reply, n_tokens_in, n_tokens_out, usd FROM calls
WHERE key IN (SELECT unnest(?::VARCHAR[])) QUALIFY row_number() OVER (PARTITION BY key) = 1 ORDER BY key
"""
CANDIDATES = "SELECT rank, text, value, n_judged, explainer FROM candidates WHERE latent = ? ORDER BY run, rank"


def judgements(index: FeatureIndex, latent: int) -> list[dict[str, Any]]:
    """Every question that a scorer asked about a latent, as rows of `examples`."""
    return index.arrow(JUDGED, [latent]).to_pylist()


def replies(index: FeatureIndex, keys: list[str]) -> list[dict[str, Any]]:
    """The replies with these keys, each once: `key model prompt request reply n_tokens_in n_tokens_out usd`."""
    return index.arrow(REPLIES, [keys]).to_pylist() if keys else []


def candidates(index: FeatureIndex, latent: int) -> list[dict[str, Any]]:
    """The explanations among which the best was chosen, where several were written."""
    return index.arrow(CANDIDATES, [latent]).to_pylist()
