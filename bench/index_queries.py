"""How long a published index of 65,536 latents, 10 M tokens and 100 M events takes to answer, warm.

Run from anywhere: `python bench/index_queries.py` (`--quick` to see that it runs; `--keep FOLDER` to make the index in
a folder, or to ask the one that is there); 6 GB of disk for a while. What fires where is made up (`bench/made_up.py`),
and everything that follows from it is indexed as ever; logits, neighbours, explanations and scores, for which a
dictionary, a model and an explainer would be needed, are drawn. A feature page is what the dashboard asks of a latent:
its row with the histogram, contexts with the text around them, n-grams, neighbours, co-activations, explanations and
scores.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from autointerp.index.config import IndexConfig
from autointerp.index.given import index_codes
from autointerp.search import Searcher
from bench import made_up
from bench.harness import Figure, main, write
from store.feature_index import TEXT_FOLDER, FeatureIndex
from store.index import publish, write_part
from store.index_tables import SCHEMAS
from store.latents import latent_page, windows
from store.run import Run, list_runs, start_run
from store.token_map import TokenMap, write_token_map

FULL = {"n_tokens": 10_240_000, "d_sae": 65_536, "k": 10}
QUICK = {"n_tokens": 102_400, "d_sae": 2_048, "k": 8}
WARM_UP, N_PAGES, N_LISTS, N_SEARCHES = 20, 200, 60, 40
PAGE_SIZE = 50
LIST = """
SELECT f.latent, f.explanation, f.score, f.ci_low, f.ci_high, f.n_judged, f.chance, f.null_score, f.promotes,
       f.density, f.max, f.n_docs
FROM features f
WHERE (f.explanation ILIKE ? ESCAPE '^' OR f.promotes ILIKE ? ESCAPE '^') AND f.density >= ? AND f.n_fired > 0
ORDER BY f.{by} {order} NULLS LAST, latent LIMIT ? OFFSET ?
"""
"""As app/web/screens/features.py asks."""


def measure() -> bool:
    """Make the index, or open one, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    parser.add_argument("--keep", type=Path, help="folder to make the index in, or that holds it")
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    with contextlib.ExitStack() as stack:
        root = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = time.perf_counter()
        run = next(iter(list_runs(root, "index")), None) or made(root, **size)
        spent = time.perf_counter() - started
        index = FeatureIndex(run.folder)
        found = {
            "feature page": timed(pages(index), N_PAGES),
            "filtered, sorted list": timed(lists(index), N_LISTS),
            "context search": timed(searches(index), N_SEARCHES),
        }
        about = index.arrow("SELECT count(*) AS latents, sum(n_events) AS events FROM latents").to_pylist()[0]
    reach = {"feature page": ("<= 20", "<= 60"), "filtered, sorted list": (None, "<= 60")}
    figures = [
        Figure(f"{name}, p{q}", float(np.percentile(times, q)), "ms", reach.get(name, (None, "<= 300"))[q == 95])
        for name, times in found.items()
        for q in (50, 95)
    ]
    figures += [Figure("latents", about["latents"], ""), Figure("events", int(about["events"]), "")]
    figures.append(Figure("tokens", size["n_tokens"], ""))
    settings = {"quick": args.quick, "made in seconds": spent}
    return write("index_queries", figures, **settings, milliseconds={name: list(t) for name, t in found.items()})


def timed(jobs: Iterator[Callable[[], Any]], n: int) -> np.ndarray:
    """`[n]` milliseconds of the jobs after the first few."""
    times = []
    for _ in range(WARM_UP + n):
        job = next(jobs)
        started = time.perf_counter()
        job()
        times.append(1000 * (time.perf_counter() - started))
    return np.array(times[WARM_UP:])


def pages(index: FeatureIndex) -> Iterator[Callable[[], Any]]:
    """Feature pages of latents at random."""
    rng = np.random.default_rng(0)

    def page(latent: int) -> None:
        shown = latent_page(index, latent)
        if not (shown.neighbours and shown.scores and windows(index, latent)):
            raise RuntimeError(f"the page of latent {latent} lacks something: the figure would be of less than a page")

    while True:
        latent = int(rng.integers(index.n_latents))
        yield partial(page, latent)


def lists(index: FeatureIndex) -> Iterator[Callable[[], Any]]:
    """Pages of the list, filtered by a word and a density, each by another column."""
    rng = np.random.default_rng(0)
    while True:
        for by in ("score", "score_minus_null", "density", "max", "n_docs", "latent"):
            for order in ("DESC", "ASC"):
                word = f"%w{rng.integers(100)}%"
                asked = [word, word, 1e-6, PAGE_SIZE, PAGE_SIZE * int(rng.integers(3))]
                yield partial(index.sql, LIST.format(by=by, order=order), asked)


def searches(index: FeatureIndex) -> Iterator[Callable[[], Any]]:
    """What fires on a word, common or rare, or on two."""
    rng, searcher = np.random.default_rng(0), Searcher(index)
    while True:
        first, second = (made_up.WORDS[int(i)].strip() for i in np.exp(rng.random(2) * np.log(20_000)))
        for query in (first, f"{first} {second}"):
            yield partial(searcher.search, query, "text")


def made(root: Path, n_tokens: int, d_sae: int, k: int) -> Run:
    """A published index, explained and scored."""
    with start_run(root, "activations", {"made up": n_tokens}, {}) as harvest:
        made_up.lay_out(harvest.folder, n_tokens)
        harvest.finish({})
    cfg = IndexConfig()
    with start_run(root, "index", cfg, {"activations": harvest.id, "sae": "made up"}) as run:
        write_token_map(run.folder / TEXT_FOLDER, harvest.folder)
        codes = made_up.codes(TokenMap(run.folder / TEXT_FOLDER), d_sae, k)
        results = index_codes(run.folder, harvest.folder, codes, d_sae, made_up.WORDS, cfg)
        rng = np.random.default_rng(0)
        for table, columns in drawn(rng, d_sae, cfg).items():
            write_part(run.folder, table, columns)
        run.finish(results)
    for kind, columns in said(rng, d_sae).items():
        with start_run(root, kind, {"made up": d_sae}, {"index": run.id}) as told:
            n = len(columns["latent"])
            full = {name: columns.get(name, [None] * n) for name in SCHEMAS[kind].names}
            write_part(told.folder, kind, full | {"run": [told.id] * n})
            told.finish({})
    publish(run)
    return run


def drawn(rng: np.random.Generator, d_sae: int, cfg: IndexConfig) -> dict[str, dict[str, Any]]:
    """Tables for which a dictionary and a model would be needed."""
    each = np.arange(d_sae)
    tokens = rng.integers(0, made_up.BOS, d_sae * 2 * cfg.n_logits)
    counts = rng.integers(0, 10_000, (d_sae, cfg.n_bins), np.int32)
    return {
        "logits": {
            "latent": np.repeat(each, 2 * cfg.n_logits),
            "side": np.tile(np.repeat(["top", "bottom"], cfg.n_logits), d_sae),
            "rank": np.tile(np.arange(cfg.n_logits), 2 * d_sae),
            "token_id": tokens,
            "token": pa.array(made_up.WORDS).take(pa.array(tokens)),
            "value": rng.standard_normal(len(tokens), np.float32),
        },
        "logit_effects": {
            "latent": each,
            **{name: rng.random(d_sae) for name in ("std", "skewness", "kurtosis", "low", "high")},
            "histogram": list(counts),
        },
        "neighbours": {
            "latent": np.repeat(each, 2 * cfg.n_neighbours),
            "side": np.tile(np.repeat(["decoder", "encoder"], cfg.n_neighbours), d_sae),
            "rank": np.tile(np.arange(cfg.n_neighbours), 2 * d_sae),
            "other": rng.integers(0, d_sae, 2 * cfg.n_neighbours * d_sae),
            "cosine": rng.random(2 * cfg.n_neighbours * d_sae, np.float32),
        },
    }


def said(rng: np.random.Generator, d_sae: int) -> dict[str, dict[str, Any]]:
    """An explanation of every latent, its score and the null's."""
    each = np.arange(d_sae)
    texts = [
        f"fires on {made_up.WORDS[a]} before {made_up.WORDS[b]}, in talk" for a, b in rng.integers(0, 5000, (d_sae, 2))
    ]
    twice = np.repeat(each, 2)
    figures = {name: rng.random(2 * d_sae) for name in ("value", "ci_low", "ci_high", "chance")}
    counts = {name: np.full(2 * d_sae, 20) for name in ("n_judged", "n_unparsed", "n_docs", "n_docs_shared")}
    return {
        "explanations": {
            "latent": each,
            "explainer": ["made up"] * d_sae,
            "text": texts,
            "input_text": texts,
            "method": ["drawn"] * d_sae,
            "n_contexts": np.full(d_sae, 20),
            "n_docs": np.full(d_sae, 20),
        },
        "scores": {
            "latent": twice,
            "explainer": ["made up"] * len(twice),
            "scorer": ["made up"] * len(twice),
            "arm": ["explanation", "shuffled"] * d_sae,
            **figures,
            **counts,
        },
    }


if __name__ == "__main__":
    main(measure)
