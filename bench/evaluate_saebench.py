"""Core figures of an evaluation against SAEBench's own, on the same dictionary and tokens.

Run from anywhere, after `sh bench/peers/build.sh`: `python bench/evaluate_saebench.py`; `--fixture` makes the few
kilobytes that a test reads instead. Where SAEBench's formula is right, both agree. Where it is not, its number is
reproduced from the same rows under a name that says whose it is, which says what it is.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from activations.losses import distribution
from bench.harness import Figure, main, write
from bench.peers.worker import worker
from bench.render import REPO
from bench.sides import N_THREADS
from sae import SAE
from sae.convert import read
from sae.geometry import nearest
from sae.legacy import LEGACY
from sae.metrics import StreamingEvaluation, loss_recovered

FIXTURE = REPO / "tests" / "app" / "saebench_core"
REACH = "<= 0.0001"
MEASURED = {"d_model": 48, "d_vocab": 300, "n_ctx": 64, "n_batches": 4, "n_prompts": 8, "d_sae": 192, "n_steps": 300}
SMALL = {"d_model": 12, "d_vocab": 24, "n_ctx": 12, "n_batches": 3, "n_prompts": 4, "d_sae": 32, "n_steps": 100}
ARCHITECTURES = {"topk": {"k": 8}, "jumprelu": {"l0_coefficient": 0.3}}


def measure() -> bool:
    """Both on what SAEBench saved, for each architecture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixture", action="store_true", help="make the test's files, measure nothing")
    args = parser.parse_args()
    if args.fixture:
        make("topk", {**SMALL, "seed": 0}, FIXTURE)
        return True
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        for architecture in ARCHITECTURES:
            folder = Path(scratch) / architecture
            make(architecture, {**MEASURED, "seed": 0}, folder)
            figures += [Figure(f"{architecture}: {name}", off, "", REACH) for name, off in compared(folder)]
    return write("evaluate_saebench", figures, saebench="0.6.0", **MEASURED)


def make(architecture: str, size: dict[str, int], folder: Path) -> None:
    """Have SAEBench train, measure and save."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request = {"folder": str(folder), "architecture": architecture, "settings": ARCHITECTURES[architecture], **size}
    with worker("saebench_core.py", {"n_threads": N_THREADS}, folder.with_suffix(".log")) as peer:
        peer.ask(request)
    folder.with_suffix(".log").unlink()


def compared(folder: Path) -> Iterator[tuple[str, float]]:
    """What was compared, and how far apart both are, relative to SAEBench's number."""
    theirs = json.loads((folder / "saebench.json").read_text(encoding="utf-8"))
    sae, seen = read(folder, "saelens").sae, load_file(folder / "seen.safetensors")
    for name, value in ours(sae, seen).items():
        yield name, off(value, theirs[name])
    for name, value in explained(sae, seen).items():
        yield f"{name}, SAEBench's formula", off(value, theirs[name])


@torch.no_grad()
def ours(sae: SAE, seen: dict[str, Tensor]) -> dict[str, Any]:
    """Our figures whose SAEBench formula is right, by SAEBench's names."""
    rows = StreamingEvaluation(sae)
    rows.update(seen["x"].flatten(0, 1))
    found, losses = rows.value(), means_of_losses(seen)
    return losses | {
        "l0": found.l0,
        "cossim": found.cosine,
        "l2_ratio": found.l2_ratio,
        "feature_density": (found.counts / found.n_rows).tolist(),
        "max_decoder_cosine_sim": nearest(sae.W_dec).cosine.tolist(),
    }


def means_of_losses(seen: dict[str, Tensor]) -> dict[str, float | None]:
    """Cross-entropies over all predictions and divergences over all positions, and what is recovered of both."""
    following = seen["tokens"][:, 1:].flatten()
    all_positions = {
        name: distribution(seen[f"logits_{name}"].flatten(0, 1)) for name in ("clean", "spliced", "ablated")
    }
    predicting = {name: distribution(seen[f"logits_{name}"][:, :-1].flatten(0, 1)) for name in all_positions}
    ce = {name: found.cross_entropy(following).mean().item() for name, found in predicting.items()}
    kl = {name: all_positions["clean"].kl_to(found).mean().item() for name, found in all_positions.items()}
    return {
        "ce_loss_without_sae": ce["clean"],
        "ce_loss_with_sae": ce["spliced"],
        "ce_loss_with_ablation": ce["ablated"],
        "ce_loss_score": loss_recovered(ce["clean"], ce["spliced"], ce["ablated"]),
        "kl_div_with_sae": kl["spliced"],
        "kl_div_with_ablation": kl["ablated"],
        "kl_div_score": loss_recovered(0.0, kl["spliced"], kl["ablated"]),
    }


@torch.no_grad()
def explained(sae: SAE, seen: dict[str, Tensor]) -> dict[str, float]:
    """SAEBench's numbers that mean something else than their names, from its own formulas.

    `explained_variance` subtracts no mean of x. `explained_variance_legacy` averages a ratio over rows, batch by batch.
    `mse` is divided by a batch's tokens once more. `relative_reconstruction_bias` is a mean of the batches' ratios.
    """
    x = seen["x"].flatten(0, 1)
    x_hat, n_batches = sae(x.float()).x_hat.double(), int(seen["n_batches"])
    x = x.double()
    batches = list(zip(x.chunk(n_batches), x_hat.chunk(n_batches), strict=True))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return {
        "explained_variance": LEGACY["legacy_ev_saebench"](x, x_hat),
        "explained_variance_legacy": mean([LEGACY["legacy_ev_saelens"](a, b) for a, b in batches]),
        "mse": mean([((a - b).square().sum(1) / len(a)).mean().item() for a, b in batches]),
        "relative_reconstruction_bias": mean([(b.square().sum() / (a * b).sum()).item() for a, b in batches]),
    }


def off(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest of SAEBench's numbers."""
    a, b = (torch.as_tensor(value, dtype=torch.float64).reshape(-1) for value in (ours, theirs))
    return float((a - b).abs().max() / b.abs().max())


if __name__ == "__main__":
    main(measure)
