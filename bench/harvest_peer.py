"""A harvest against SAELens' CacheActivationsRunner: one hook point, six, and the pipeline without a forward pass.

Run from anywhere, after `sh bench/peers/build.sh`: `python bench/harvest_peer.py`. Both sides see the same tokens,
store float16 and have their model loaded before the clock starts. What differs favours the peer: its tokens are
tokenized beforehand, and it neither checks values, hashes, shuffles rows on the disk, nor waits until they lie there.

SAELens runs its model through TransformerLens' HookedTransformer by default; its AutoModelForCausalLM class is faster
but only sees outputs of whole modules. Its cache holds one hook point, so that six are six passes.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from activations.lm import LanguageModel
from activations.models import load_model
from bench import words
from bench.harness import Figure, Paired, main, paired, table, write
from bench.peers.worker import worker
from bench.sides import N_THREADS, StubLM, config, harvest_seconds, harvested, save_stub
from store.run import Run

BATCH_SIZE = 16
"""Sequences that the peer puts through the model at once: as many tokens as the project by default."""
BUFFER_ROWS = 8_192
"""Rows of one of the peer's files, at most; it writes 65,536 no faster."""
HOOKS = {"HookedTransformer": "blocks.{}.hook_resid_post", "AutoModelForCausalLM": "transformer.h.{}"}
"""SAELens' ways to run a model, with their names of a block's output."""
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same harvest on both sides."""

    name: str
    n_tokens: int
    layers: tuple[int, ...]
    peer_class: str = "HookedTransformer"
    stub: bool = False
    """A forward pass that costs nothing, in place of the model."""
    peer_dtype: str = "float16"
    reach: str | None = None

    sites: tuple[str, ...] = ()
    """Hook points by name, where they are not the layers' outputs."""

    def hooks(self, peer_class: str = "HookedTransformer") -> tuple[str, ...]:
        """Names of the hook points, for each side."""
        return self.sites or tuple(HOOKS[peer_class].format(layer) for layer in self.layers)


ONE, SIX, PIPELINE = (8,), (0, 2, 4, 6, 8, 10), (8,)
SITES = (
    *(f"blocks.8.{site}" for site in ("hook_resid_pre", "hook_resid_mid", "hook_attn_out", "hook_mlp_out")),
    "blocks.8.hook_resid_post",
    "blocks.7.hook_mlp_out",
)
"""Where a model of many sites is looked at closely: six passes of one depth for the peer."""
TRIED = {
    "Arrow writes shards, fresh memory for every window": [95264, 120040, 111542, 140529],
    "shard bytes put together from memory, checksums meanwhile": [
        97048,
        133484,
        156448,
        143809,
        101462,
        146623,
        147284,
    ],
    "and memory kept between windows, padding-free batches not copied, tokenizer called directly": [
        89690,
        68065,
        76060,
    ],
    "and statistics as matrix products in the caller's thread": [2511, 2821, 4868, 3882, 2582, 62505],
    "and statistics in small pieces in a thread of their own": [131608, 175184, 152160, 138561, 162578, 152608],
}
"""Rows per second of the pipeline alone on 131,072 tokens: every run of each way, in the order they were built.

Taken by hand, unpaired, on a machine whose load varied: they say what helped, not by how much. Since then two shards
are written at once, which was not timed apart: the benchmark's own figure is of that.
"""
FAST = "AutoModelForCausalLM"
COMPARISONS = (
    Comparison(name="one hook point", n_tokens=6_144, layers=ONE, reach=">= 1.0"),
    Comparison(name="one hook point, its fastest class", n_tokens=6_144, layers=ONE, peer_class=FAST, reach=">= 1.0"),
    Comparison(name="six hook points", n_tokens=4_096, layers=SIX, reach=">= 4"),
    Comparison(name="six hook points of one block", n_tokens=4_096, layers=SIX, sites=SITES, reach=">= 4"),
    Comparison(name="six hook points, its fastest class", n_tokens=4_096, layers=SIX, peer_class=FAST),
    Comparison(name="pipeline alone", n_tokens=131_072, layers=PIPELINE, stub=True, reach=">= 5"),
    Comparison(name="pipeline alone, its float32", n_tokens=131_072, layers=PIPELINE, stub=True, peer_dtype="float32"),
)


def measure() -> bool:
    """Every comparison, its peer loaded for as long as it lasts."""
    torch.set_num_threads(N_THREADS)
    pairs: dict[str, Paired] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words.save_model(folder / "gpt2")
        save_stub(folder / "stub")
        models: dict[bool, LanguageModel] = {
            False: load_model(str(folder / "gpt2")),
            True: StubLM(folder / "stub"),
        }
        for comparison in COMPARISONS:
            name = f"saelens / monosem, {comparison.name}"
            pairs[name] = compare(comparison, models[comparison.stub], folder)
            print(table([], {name: pairs[name]}), flush=True)  # minutes pass until the end
    named = list(zip(COMPARISONS, pairs.items(), strict=True))
    ratios = [Figure(name, pair.ratio, "ratio", comparison.reach) for comparison, (name, pair) in named]
    rates = [figure for comparison, (_, pair) in named for figure in rows_per_second(comparison, pair)]
    settings = {"n_threads": N_THREADS, "dtype": "float16", "pipeline alone, tried, rows per second": TRIED}
    return write("harvest_peer", [*ratios, *rates], **settings, **pairs)


def compare(comparison: Comparison, lm: LanguageModel, folder: Path) -> Paired:
    """Peer and project in turn."""
    documents, tokens = words.save_text(folder / f"text-{comparison.n_tokens}", comparison.n_tokens)
    model = folder / ("stub" if comparison.stub else "gpt2")
    cfg = config(model, comparison.hooks(), documents, comparison.n_tokens)
    with worker("saelens_harvest.py", job(comparison, model, tokens, folder), folder / "worker.log") as peer:
        pair = paired(peer, lambda: harvest_seconds(cfg, lm, folder / "runs"), REPEATS)
        _, run = harvested(cfg, lm, folder / "checked")
        check(comparison, {answer["rows"] for answer in peer.answers} | {rows(run)})
    return pair


def job(comparison: Comparison, model: Path, tokens: Path, folder: Path) -> dict[str, Any]:
    """What the worker is told."""
    return {
        "model": None if comparison.stub else str(model),
        "model_class": comparison.peer_class,
        "hook_points": comparison.hooks(comparison.peer_class),
        "tokens": str(tokens),
        "n_tokens": comparison.n_tokens,
        "n_ctx": words.N_CTX,
        "d_in": words.D_MODEL,
        "dtype": comparison.peer_dtype,
        "batch_size": BATCH_SIZE,
        "buffer_rows": min(BUFFER_ROWS, comparison.n_tokens),
        "n_threads": N_THREADS,
        "scratch": str(folder / "peer"),
    }


def rows(run: Run) -> int:
    """Rows that a harvest of ours holds, over all hook points."""
    return sum(sum(about["n_rows"].values()) for about in run.results["hook_points"].values())


def check(comparison: Comparison, found: set[int]) -> None:
    """Neither side may have harvested more, or less, than was asked."""
    wanted = comparison.n_tokens * len(comparison.layers)
    if found != {wanted}:
        raise RuntimeError(f"{found} rows were harvested where {wanted} were asked: the comparison is not fair")


def rows_per_second(comparison: Comparison, pair: Paired) -> list[Figure]:
    """Rows of all hook points over the median seconds, of both sides."""
    n_rows = comparison.n_tokens * len(comparison.layers)
    return [
        Figure(f"saelens, {comparison.name}", n_rows / pair.median_a, "rows/s"),
        Figure(f"monosem, {comparison.name}", n_rows / pair.median_b, "rows/s"),
    ]


if __name__ == "__main__":
    main(measure)
