"""Core figures of an evaluation against the forward passes that they cannot do without.

Run from anywhere: `python bench/evaluate_core.py`. The floor is three passes of the bare model, logits included, over
the same held-out tokens in the same batches: clean, reconstruction spliced in, ablated. The evaluation makes four (it
ablates in two ways), takes cross-entropy and KL divergence of each, and every figure over the held-out rows besides.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from activations.batching import batches
from activations.harvest import harvest
from activations.models import DEFAULT_MODEL, find_model
from activations.prepare import heldout_sequences
from app.evaluation.loss import LossConfig, measure_loss
from app.evaluation.reconstruction import ReconstructionConfig, measure_reconstruction
from app.evaluation.subject import Subject
from app.training import TrainJob, train_sae, variant_config
from bench.harness import Figure, main, paired, write
from bench.sides import N_THREADS, config
from sae.train import TrainConfig
from store.run import Run

HOOK_POINT, D_SAE, K = "blocks.8.hook_resid_post", 4608, 32
N_TOKENS = 40_000
REACH = "<= 1.3"


def measure() -> bool:
    """Three passes and the core parts in turn."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        activations = harvest(config(DEFAULT_MODEL, (HOOK_POINT,), "english", N_TOKENS), root)
        subject = Subject(trained(activations, root), activations)
        sequences = heldout_sequences(activations.folder, 10_000, 0)
        jobs = [batch.tokens for batch in batches(sequences, LossConfig().batch_tokens)]
        model = bare_model()
        pair = paired(lambda: core(subject), lambda: three_passes(model, jobs))
    n_tokens = sum(map(len, sequences))
    figures = [
        Figure("core parts / three forward passes", pair.ratio, "ratio", REACH),
        Figure("core parts", n_tokens / pair.median_a, "held-out tokens/s"),
        Figure("one forward pass", 3 * n_tokens / pair.median_b, "tokens/s"),
    ]
    settings = {"model": DEFAULT_MODEL, "hook_point": HOOK_POINT, "d_sae": D_SAE, "n_heldout_tokens": n_tokens}
    return write("evaluate_core", figures, **settings, n_threads=N_THREADS, **{"core / three passes": pair})


def trained(activations: Run, root: Path, n_steps: int = 50) -> Run:
    """A dictionary of the demo's shape; how good it is does not change how long it takes to measure."""
    d_in = activations.results["hook_points"][HOOK_POINT]["d_in"]
    sae = variant_config("topk", [d_in], {"d_sae": D_SAE, "k": K})
    job = TrainJob(variant="topk", sae=sae, train=TrainConfig(n_steps=n_steps, lr=1e-3), hook_point=HOOK_POINT)
    return train_sae(job, activations, root)


def core(subject: Subject) -> None:
    """Both parts, on the held-out documents."""
    measure_reconstruction(ReconstructionConfig(dead_over="heldout"), subject)
    measure_loss(LossConfig(n_sequences=10_000), subject)


def bare_model() -> Any:
    """The model as Hugging Face runs it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(find_model(DEFAULT_MODEL).folder), dtype=torch.float32).eval()


@torch.inference_mode()
def three_passes(model: Any, jobs: list[Tensor]) -> None:
    """Every batch three times, nothing kept."""
    for _ in range(3):
        for tokens in jobs:
            model(tokens, use_cache=False)


if __name__ == "__main__":
    main(measure)
