"""Peak memory of explaining and scoring 1,000, 10,000 and 100,000 latents of a dictionary of 100,000.

Run from anywhere: `python bench/interpret_memory.py` (`--quick` to see that it runs; `--keep FOLDER` to make the index
in a folder, or to use the one that is there); 2 GB of disk for a while. What fires where is made up
(`bench/made_up.py`): about 24 events of each latent. The explainer is `tokens`; the scorer is `detection`, by a judge
that answers from a script, on few contexts of each latent, beside the null `shuffled`, for which the words of another
latent are looked up. Each number of latents has a process of its own; its largest resident set above that at the start
is the figure, mapped files included, while latents are worked on and, apart from that, while what came of them is
published.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autointerp.index.config import IndexConfig
from autointerp.index.given import index_codes
from bench import made_up
from bench.harness import Figure, main, write
from bench.index_queries import drawn
from bench.render import REPO
from store.feature_index import TEXT_FOLDER
from store.index import publish, write_part
from store.run import Run, list_runs, start_run
from store.token_map import TokenMap, write_token_map

SIZES, QUICK = (1_000, 10_000, 100_000), (100, 500, 4_000)
EVENTS, K = 24, 8
"""Of each latent, and latents on each token."""
CFG = IndexConfig(n_neighbours=1, n_logits=2)


def measure() -> bool:
    """Make the index, and explain and score some of it, more of it and all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    parser.add_argument("--keep", type=Path, help="folder to make the index in, or that holds it")
    args = parser.parse_args()
    sizes = QUICK if args.quick else SIZES
    with tempfile.TemporaryDirectory() as scratch:
        root = args.keep or Path(scratch) / "runs"
        if not list_runs(root, "index"):
            made(root, sizes[-1])
        found = {n: in_own_process(root, n) for n in sizes}
    return write(
        "interpret_memory", list(figures(found)), quick=args.quick, found={str(n): f for n, f in found.items()}
    )


def figures(found: Mapping[int, Mapping[str, float]]) -> Iterator[Figure]:
    """Peaks above the start, what more latents add to them, and times."""
    few, *_, many = found
    for n, told in found.items():
        yield Figure(f"explaining and scoring, {n:,} latents", worked(told), "MB")
    growth = worked(found[many]) - worked(found[few])
    yield Figure(f"more for {many:,} latents than for {few:,}", growth, "MB", "<= 200")
    yield Figure("the same, of each latent", 1e6 * growth / (many - few), "bytes", "<= 2000")
    for n, told in found.items():
        yield Figure(f"publishing, {n:,} latents", 1000 * (told["publish_gb"] - told["before_gb"]), "MB", "<= 1000")
    for n, told in found.items():
        yield Figure(f"time of a latent, of {n:,}", 1000 * told["seconds"] / told["n_explained"], "ms")
    for name in ("explained", "scored", "shuffled"):
        yield Figure(f"{name}, of {many:,}", found[many][f"n_{name}"], "latents", f">= {0.99 * many:.0f}")


def worked(told: Mapping[str, float]) -> float:
    """Megabytes above the start."""
    return 1000 * (max(told["explain_gb"], told["score_gb"]) - told["before_gb"])


def in_own_process(root: Path, n_latents: int) -> dict[str, Any]:
    """Peaks and seconds of some latents, in a copy of the root, without what was made of others."""
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        # Files of a root are replaced, never written again: a link is as good as a copy.
        own = shutil.copytree(root, Path(scratch) / "runs", copy_function=os.link)
        command = [sys.executable, "-m", "bench.one_interpret", str(own), str(n_latents)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPO)
    return json.loads(done.stdout.splitlines()[-1])


def made(root: Path, d_sae: int) -> Run:
    """A published index of latents that all fire about as often."""
    per_document = made_up.N_CTX * made_up.SEQUENCES_PER_DOCUMENT
    n_tokens = -(-d_sae * EVENTS // K // per_document) * per_document
    with start_run(root, "activations", {"made up": n_tokens}, {}) as harvest:
        made_up.lay_out(harvest.folder, n_tokens)
        harvest.finish({})
    with start_run(root, "index", CFG, {"activations": harvest.id, "sae": "made up"}) as run:
        write_token_map(run.folder / TEXT_FOLDER, harvest.folder)
        codes = made_up.codes(TokenMap(run.folder / TEXT_FOLDER), d_sae, K, power=1)
        results = index_codes(run.folder, harvest.folder, codes, d_sae, made_up.WORDS, CFG)
        for table, columns in drawn(np.random.default_rng(0), d_sae, CFG).items():
            write_part(run.folder, table, columns)
        run.finish(results)
    publish(run)
    return run


if __name__ == "__main__":
    main(measure)
