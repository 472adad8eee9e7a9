"""Which latents fire on the documents' text that matches a query."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from autointerp.search import matches
from autointerp.search.enrichment import enrichment, expected_share
from autointerp.search.sources import SearchConfig, Sources, asked_for
from autointerp.search.spans import Stretches, TokensOf
from store.feature_index import Fired
from store.token_map import TokenMap

AROUND = 60
"""Bytes of an example shown on either side of its match."""


class Hits(NamedTuple):
    """What fires on the tokens of matches, in order of latent and match."""

    latent: np.ndarray
    """`[n]`."""
    match: np.ndarray
    """`[n]`."""
    place: np.ndarray
    """`[n]` the token."""
    is_first: np.ndarray
    """`[n]` bool: the first entry of its latent and match."""


def search_text(sources: Sources, query: str, cfg: SearchConfig) -> pd.DataFrame:
    """Latents that fire on what matches `query`, those with the most evidence first.

    Columns: `latent n_hits n_judged`, those of `autointerp.search.enrichment.Enrichment`, `density`, those of `Shown`,
    and `explanation`. A match is judged by its tokens that count, and a hit if the latent fires on any of them.

    Raises:
        UsageError: no query, one that RE2 does not take, or the search takes too long.
    """
    asked_for(query, "a text, or an expression with --regex", blank=True)
    found = _found(sources.index.tokens, query, cfg)
    looked_at = _sample(found, cfg)
    of = sources.runs.tokens_of(looked_at)
    counted = sources.codes.counted(of.place)
    judged = TokensOf(of.which[counted], of.place[counted])
    hits, n_tokens = _hits(sources, judged), np.unique(judged.which, return_counts=True)[1]
    frame = _ranked(hits, n_tokens, sources.density).head(cfg.n).reset_index(drop=True)
    latents = frame["latent"].tolist()
    events = sources.index.events_of(latents)
    shown = [_shown(sources.index.tokens, *each, hits, looked_at) for each in zip(latents, events, strict=True)]
    frame = frame.join(pd.DataFrame(shown, columns=list(Shown._fields), index=frame.index))
    frame["explanation"] = pd.Series(sources.explanations(latents), dtype=object)
    frame.attrs["note"] = _note(len(found.start), len(looked_at.start), len(n_tokens))
    return frame


def _ranked(hits: Hits, n_tokens: np.ndarray, density: np.ndarray) -> pd.DataFrame:
    """Latents that fire on matches of `n_tokens` tokens more often than elsewhere, by how sure that is."""
    n_hits = np.bincount(hits.latent[hits.is_first], minlength=len(density))
    latents = np.flatnonzero(n_hits)
    n_hits, density, n_latents = n_hits[latents], density[latents], len(density)
    expected = expected_share(density, n_tokens) if len(latents) else np.empty(0)
    measured = enrichment(n_hits, max(len(n_tokens), 1), expected, n_latents)
    frame = pd.DataFrame({"latent": latents, "n_hits": n_hits, "n_judged": len(n_tokens)})
    frame = frame.assign(**measured._asdict(), density=density)
    return frame.loc[measured.bits > 0].sort_values(["bits", "latent"], ascending=[False, True])


def _found(tokens: TokenMap, query: str, cfg: SearchConfig) -> Stretches:
    check = matches.deadline(cfg.timeout_s)
    if cfg.regex:
        return matches.expression(tokens, query, check, exact=cfg.exact)
    return matches.literal(tokens.text, query, check, exact=cfg.exact)


def _sample(found: Stretches, cfg: SearchConfig) -> Stretches:
    if len(found.start) <= cfg.max_matches:
        return found
    random = np.random.default_rng(cfg.seed)
    chosen = np.sort(random.choice(len(found.start), cfg.max_matches, replace=False, shuffle=False))
    return Stretches(found.start[chosen], found.stop[chosen])


def _note(n_found: int, n_looked_at: int, n_judged: int) -> str:
    sampled = f", a sample of {n_looked_at:,} looked at" if n_looked_at < n_found else ""
    without = n_looked_at - n_judged
    return f"{n_found:,} matches{sampled}, {n_judged:,} judged" + (
        f" ({without:,} have no token that counts)" if without else ""
    )


def _hits(sources: Sources, judged: TokensOf) -> Hits:
    fired = sources.codes.fired(judged.place)
    token = np.repeat(np.arange(len(judged.place)), np.diff(fired.bounds))
    order = _by_latent(fired.latents)
    latent, token = fired.latents[order], token[order]
    match = judged.which[token]
    is_first = np.ones(len(latent), bool)
    is_first[1:] = (latent[1:] != latent[:-1]) | (match[1:] != match[:-1])
    return Hits(latent, match, judged.place[token], is_first)


def _by_latent(latents: np.ndarray) -> np.ndarray:
    """The order that sorts them, equals as they are; sixteen bits at a time, which is done by radix."""
    order = np.argsort((latents & 0xFFFF).astype(np.uint16), kind="stable")
    if latents.dtype == np.uint16:
        return order
    return order[np.argsort((latents[order] >> 16).astype(np.uint16), kind="stable")]


class Shown(NamedTuple):
    """What is shown of a latent that was found."""

    n_docs: int
    """Documents of its hits."""
    max: float | None
    """Largest value kept on one of them; None where none was kept. The rest is of that token."""
    doc_id: int
    seq: int
    pos: int
    example: str
    """A match with « » around it, in its document."""


def _shown(tokens: TokenMap, latent: int, fired: Fired, hits: Hits, looked_at: Stretches) -> Shown:
    number = hits.latent.dtype.type(latent)  # of another type, all of them would be copied to that one
    own = slice(np.searchsorted(hits.latent, number), np.searchsorted(hits.latent, number, "right"))
    match = hits.match[own]
    seq, pos = tokens.positions(hits.place[own])
    value = _values(fired, seq, pos)
    peak = int(np.argmax(np.nan_to_num(value, nan=-np.inf)))
    docs = np.searchsorted(tokens.doc_bytes, looked_at.start[match], "right") - 1
    return Shown(
        n_docs=len(np.unique(docs)),
        max=None if np.isnan(value[peak]) else float(value[peak]),
        doc_id=int(docs[peak]),
        seq=int(seq[peak]),
        pos=int(pos[peak]),
        example=_example(tokens, int(docs[peak]), int(looked_at.start[match[peak]]), int(looked_at.stop[match[peak]])),
    )


def _values(fired: Fired, seq: np.ndarray, pos: np.ndarray) -> np.ndarray:
    """`[n]` the values kept there; NaN where none was."""
    out = np.full(len(seq), np.nan)
    kept, asked = ((s.astype(np.int64) << 32) | p for s, p in ((fired.seq, fired.pos), (seq, pos)))
    if len(kept):
        at = np.minimum(np.searchsorted(kept, asked), len(kept) - 1)
        out[kept[at] == asked] = fired.value[at[kept[at] == asked]]
    return out


def _example(tokens: TokenMap, doc: int, start: int, stop: int) -> str:
    """A match in its document; where a character is cut at the ends it is left out."""
    first, last = int(tokens.doc_bytes[doc]), int(tokens.doc_bytes[doc + 1]) - 1
    cut = stop if stop - start <= 4 * AROUND else start + 4 * AROUND
    parts = ((max(first, start - AROUND), start), (start, cut), (stop, min(last, stop + AROUND)))
    before, match, after = (tokens.text[a:b].tobytes().decode(errors="ignore") for a, b in parts)
    return f"{before}«{match}{'…' if cut < stop else ''}»{after}"
