"""Which latents fire on a token, or on the second of two."""

import pandas as pd

from autointerp.search.enrichment import enrichment
from autointerp.search.sources import SearchConfig, Sources, asked_for

QUERY = """
SELECT g.latent, g.text AS token, g.n, g.n_fired, g.n_seen, g.fires, g.share, g.mean, l.density
FROM ngrams g JOIN latents l USING (latent) WHERE g.text IN (?, ?)
"""

COLUMNS = [
    "latent",
    "token",
    "n",
    "n_fired",
    "n_seen",
    "fires",
    "ci_low",
    "ci_high",
    "share",
    "mean",
    "density",
    "bits",
]


def search_tokens(sources: Sources, query: str, cfg: SearchConfig) -> pd.DataFrame:
    """Latents one of whose commonest tokens, or pairs of tokens, reads `query`, with a space before it or not.

    Columns: `latent token n n_fired n_seen fires ci_low ci_high share mean density bits explanation`: `fires` is the
    share of the token's occurrences on which it fires, with its interval, `share` that of its firings which are there;
    `bits` is the evidence that it fires there more often than elsewhere, by which they are ranked.

    Raises:
        UsageError: no query.
    """
    asked_for(query, "a token as it is written", blank=True)
    frame = sources.index.sql(QUERY, [query, f" {query}"])
    n_fired, n_seen, density = (frame[name].to_numpy() for name in ("n_fired", "n_seen", "density"))
    found = enrichment(n_fired, n_seen, density, len(sources.density))
    frame = frame.assign(ci_low=found.ci_low, ci_high=found.ci_high, bits=found.bits)
    frame = frame.sort_values(["bits", "latent", "token"], ascending=[False, True, True]).head(cfg.n)
    frame = frame.loc[:, COLUMNS].reset_index(drop=True)
    frame["explanation"] = pd.Series(sources.explanations(frame["latent"].tolist()), dtype=object)
    frame.attrs["note"] = "among each latent's commonest tokens and pairs of tokens"
    return frame
