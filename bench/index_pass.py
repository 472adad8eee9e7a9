"""The index's pass over the activations against what it cannot do without: reading, the encoder's product, top-k.

Run from anywhere: `python bench/index_pass.py` (`--quick` to see that it runs, `--runs ROOT` to take the newest harvest
and SAE under ROOT, such as the demo's). Otherwise a harvest of 200 k tokens at SmolLM2's width by a model of one layer,
and a TopK SAE trained on it for a while. The floor opens every shard, multiplies its rows with the encoder and takes
`torch.topk`; the pass joins rows to their text, counts, looks for near misses, and writes what fires where twice, by
token and by latent, flushed to the disk. The whole index is everything from there to the published file.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from activations.progress import no_progress
from activations.reader import Activations
from autointerp.index.config import IndexConfig
from autointerp.index.encode import CHUNK_ROWS
from autointerp.index.job import _Index, build_index
from autointerp.index.spill import SPILL
from autointerp.pairing import only_hook_point
from bench.harness import Figure, main, paired, seconds, write
from bench.index_peer import K, harvest_of, trained
from bench.sides import N_THREADS
from sae import checkpoint
from sae.encoder import EncoderSAE
from store.feature_index import TEXT_FOLDER
from store.run import Run, list_runs
from store.token_map import write_token_map

N_TOKENS, QUICK_TOKENS = 204_800, 8_192
D_MODEL, D_SAE = 576, 4608
REACH = "<= 1.6"


def measure() -> bool:
    """Pass and floor in turn, then one whole index."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    parser.add_argument("--runs", type=Path, help="folder with a harvest and an SAE")
    args = parser.parse_args()
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        if args.runs is None:
            harvest, _ = harvest_of(Path(scratch), QUICK_TOKENS if args.quick else N_TOKENS, D_MODEL)
            sae_run = trained(harvest, root, D_SAE, n_steps=200)
        else:
            harvest, sae_run = (list_runs(args.runs, kind)[-1] for kind in ("activations", "sae"))
        pairs = {"pass / floor": passes(sae_run, harvest, Path(scratch) / "index")}
        whole = seconds(lambda: build_index(IndexConfig(), sae_run, harvest, root) and None)
        results = list_runs(root, "index")[-1].results
    pair = pairs["pass / floor"]
    figures = [
        Figure("index pass / reading, encoder product and topk", pair.ratio, "ratio", REACH),
        Figure("index pass", pair.median_a, "s"),
        Figure("reading, encoder product and topk", pair.median_b, "s"),
        Figure("the whole index", whole, "s"),
        Figure("the whole index / reading, encoder product and topk", whole / pair.median_b, "ratio"),
        Figure("bytes per event on disk", results["bytes_per_event"], "bytes", "<= 8"),
        Figure("events", results["n_events"], ""),
    ]
    settings = {"harvest": str(args.runs or f"{N_TOKENS} tokens, made up"), "d_sae": results["n_latents"]}
    return write("index_pass", figures, **settings, k=K, n_threads=N_THREADS, quick=args.quick, **pairs)


def passes(sae_run: Run, harvest: Run, folder: Path):
    """Times of the pass into `folder`, and of the floor."""
    activations = Activations(harvest, only_hook_point(sae_run, "index"))
    write_token_map(folder / TEXT_FOLDER, harvest.folder)
    sae = checkpoint.load(sae_run.folder)
    assert isinstance(sae, EncoderSAE)

    def ours() -> None:
        for name in (SPILL, "codes"):
            shutil.rmtree(folder / name, ignore_errors=True)
        _Index(folder, IndexConfig(), sae_run, activations, no_progress)._encode()

    return paired(ours, lambda: floor(sae, activations))


@torch.inference_mode()
def floor(sae: EncoderSAE, activations: Activations) -> None:
    """Every row read, encoded, and its largest pre-activations found; nothing kept."""
    for block in activations.blocks:
        opened = block.open()
        for start in range(0, block.n_rows, CHUNK_ROWS):
            rows = np.arange(start, min(start + CHUNK_ROWS, block.n_rows))
            x = opened.tensor(rows, activations.dtype).float()
            torch.addmm(sae.b_enc, x - sae.b_dec, sae.W_enc).topk(K, dim=1)


if __name__ == "__main__":
    main(measure)
