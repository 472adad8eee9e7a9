"""Index all features against SAEDashboard, which makes the feature pages that Neuronpedia shows.

Run from anywhere, after `sh bench/peers/build.sh`: `python bench/index_peer.py` (`--quick` to see that it runs). Same
TopK SAE, same tokens, same model (a GPT-2 of one layer, random weights), same stored activations: both begin where the
vectors lie on the disk. The peer has model and SAE loaded before its clock starts and writes nothing; the project loads
both, writes its index and publishes it. The peer goes through all tokens once for every 128 features, so that its time
for all of them is that of some such batches, others in every pair, times their number: its passes do not depend on one
another, and what it does once is not worth measuring.

Its strongest windows are the 20 largest values wherever they are, ours the strongest peak of each piece of a document
that reads differently. They are compared by its rule, from the index's events.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from activations.reader import Activations
from app.training import TrainJob, train_sae, variant_config
from autointerp.index.config import IndexConfig
from autointerp.index.job import build_index
from bench import words
from bench.harness import MIN_REPEATS, Figure, Paired, main, paired, write
from bench.peers.worker import Worker, worker
from bench.sides import N_THREADS, config, harvested
from sae import checkpoint
from sae.convert import read
from sae.convert import write as write_as
from sae.train import TrainConfig
from store.feature_index import FeatureIndex
from store.run import Run
from store.shards import TOKEN_CLASSES

HOOK_POINT, D_MODEL, K = "blocks.0.hook_resid_post", 512, 32
N_TOKENS, QUICK_TOKENS = 65_536, 8_192
FEATURES_AT_A_TIME, PROMPTS_AT_A_TIME = 128, 32
"""The peer's, with which it makes Neuronpedia's pages."""
N_TOP, N_SAMPLE = 20, 64
"""Strongest windows compared, of so many latents of each batch that is timed."""
REACH = {4608: ">= 10", 16384: ">= 20"}
QUICK = {512: None}
CFG = IndexConfig(classes=tuple(TOKEN_CLASSES), n_top=N_TOP)


def measure() -> bool:
    """Every width, peer and project in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    args = parser.parse_args()
    torch.set_num_threads(N_THREADS)
    n_tokens = QUICK_TOKENS if args.quick else N_TOKENS
    figures, pairs = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        activations, tokens = harvest_of(folder, n_tokens)
        cache_for_peer(Activations(activations, HOOK_POINT), n_tokens, folder / "cache")
        for d_sae, reach in (QUICK if args.quick else REACH).items():
            found, pair = compare(folder, activations, tokens, d_sae, reach)
            figures += found
            pairs[f"SAEDashboard, one batch / monosem, all of {d_sae}"] = pair
    settings = {"n_tokens": n_tokens, "d_model": D_MODEL, "k": K, "features_at_a_time": FEATURES_AT_A_TIME}
    settings |= {"sae_dashboard": "0.8.0", "n_threads": N_THREADS, "quick": args.quick}
    return write("index_peer", figures, **settings, **pairs)


def harvest_of(folder: Path, n_tokens: int, d_model: int = D_MODEL) -> tuple[Run, Path]:
    """A harvest by a model that both sides load, and the peer's tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from activations.models import load_model

    torch.manual_seed(0)
    shape = {"n_embd": d_model, "n_layer": 1, "n_head": 8, "vocab_size": words.D_VOCAB}
    model = GPT2LMHeadModel(GPT2Config(**shape, n_ctx=1024))
    with torch.no_grad():
        model.transformer.wte.weight.mul_(20)  # else positions are all that can be told apart
    model.save_pretrained(folder / "model")
    words.save_tokenizer(folder / "model")
    documents, tokens = words.save_text(folder / "text", n_tokens)
    cfg = config(folder / "model", (HOOK_POINT,), documents, n_tokens)
    return harvested(cfg, load_model(str(folder / "model")), folder / "runs")[1], tokens


def cache_for_peer(activations: Activations, n_tokens: int, folder: Path) -> None:
    """The harvest's vectors as the peer keeps them: `[prompts, n_ctx, d_in]` for each of its forward passes."""
    x = torch.empty(n_tokens, D_MODEL)
    for block in activations.blocks:
        opened = block.open()
        at = opened.columns["seq"].astype(np.int64) * words.N_CTX + opened.columns["pos"]
        x[torch.from_numpy(at)] = opened.tensor(np.arange(block.n_rows), activations.dtype).float()
    folder.mkdir()
    for number, prompts in enumerate(x.view(-1, words.N_CTX, D_MODEL).split(PROMPTS_AT_A_TIME)):
        torch.save({HOOK_POINT: prompts.clone()}, folder / f"model_activations_{number}.pt")


def compare(folder: Path, activations: Run, tokens: Path, d_sae: int, reach: str | None) -> tuple[list[Figure], Paired]:
    """Figures of one width, and the times they come from."""
    sae_run = trained(activations, folder / "runs", d_sae)
    write_as(folder / f"sae-{d_sae}", read(sae_run.folder), "saelens")
    job = {"model": str(folder / "model"), "sae": str(folder / f"sae-{d_sae}"), "tokens": str(tokens)}
    job |= {"hook_point": HOOK_POINT, "cache": str(folder / "cache"), "n_threads": N_THREADS}
    job |= {"n_features_at_a_time": FEATURES_AT_A_TIME, "n_prompts_at_a_time": PROMPTS_AT_A_TIME}
    index = folder / "runs" / "index"
    requests = batches(d_sae)

    def ours() -> None:
        shutil.rmtree(index, ignore_errors=True)
        build_index(CFG, sae_run, activations, folder / "runs")

    with worker("dashboard_pages.py", job, folder / "worker.log") as peer:
        pair = paired(lambda: peer.ask(next(requests))["seconds"], ours)
        n_compared, n_alike = sets_alike(peer, FeatureIndex(next(index.glob("*/manifest.json")).parent))
    n_batches = -(-d_sae // FEATURES_AT_A_TIME)
    name = f"{d_sae} latents"
    return [
        Figure(f"SAEDashboard / monosem, {name}", pair.ratio * n_batches, "ratio", reach),
        Figure(f"identical sets of the {N_TOP} strongest, {name}", n_alike / n_compared, "share", ">= 1"),
        Figure(f"latents compared, {name}", n_compared, ""),
        Figure(f"SAEDashboard, {name}, {n_batches} times one batch", pair.median_a * n_batches, "s"),
        Figure(f"monosem, {name}", pair.median_b, "s"),
    ], pair


def trained(activations: Run, root: Path, d_sae: int, n_steps: int = 30) -> Run:
    """A dictionary; how good it is does not change how long it takes."""
    d_in = activations.results["hook_points"][HOOK_POINT]["d_in"]
    sae = variant_config("topk", [d_in], {"d_sae": d_sae, "k": K})
    job = TrainJob(variant="topk", sae=sae, train=TrainConfig(n_steps=n_steps, lr=1e-3), hook_point=HOOK_POINT)
    run = train_sae(job, activations, root)
    assert torch.allclose(checkpoint.load(run.folder).W_dec.norm(dim=1), torch.ones(())), "decoder rows of norm 1"
    return run


def batches(d_sae: int) -> Any:
    """A request for each of the peer's passes: neighbouring features, and those whose strongest windows are told."""
    rng = np.random.default_rng(0)
    starts = list(range(0, d_sae, FEATURES_AT_A_TIME))
    chosen = rng.choice(starts, MIN_REPEATS + 1, replace=len(starts) <= MIN_REPEATS)
    for start in chosen.tolist():
        features = list(range(start, min(start + FEATURES_AT_A_TIME, d_sae)))
        yield {"features": features, "sample": features[:: len(features) // N_SAMPLE or 1]}


def sets_alike(peer: Worker, index: FeatureIndex) -> tuple[int, int]:
    """Latents whose strongest windows were compared, and of how many both sides name the same ones."""
    told = {int(latent): rows for answer in peer.answers for latent, rows in answer["top"].items()}
    alike = 0
    for latent, rows in told.items():
        fired = index.events(latent)
        order = np.argsort(-fired.value, kind="stable")[:N_TOP]
        own = {(int(fired.seq[i]), int(fired.pos[i])): float(fired.value[i]) for i in order}
        theirs = {(row, pos): value for row, pos, value in rows}
        alike += own.keys() == theirs.keys() and all(
            abs(own[at] - value) < 1e-4 + 1e-4 * abs(value) for at, value in theirs.items()
        )
    return len(told), alike


if __name__ == "__main__":
    main(measure)
