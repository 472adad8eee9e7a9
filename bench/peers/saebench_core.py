"""SAEBench's own core metrics as a worker: a small random model, a SAELens dictionary of it, and what SAEBench says.

It saves what any other definition needs to be held against it: the dictionary, the activations, and the logits with the
activations as they are, reconstructed, and zeroed.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from answers import read_job, requests, say
from sae_bench.evals.core import main as core
from sae_lens import SAE
from saelens_sae import build, trainer
from safetensors.torch import save_file
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

HOOK_POINT, LAYER = "blocks.0.hook_resid_post", 0
OFFSET = 1.5
"""Added to every embedding: a residual stream has a mean, and that is where formulas part."""


def main() -> None:
    """Answer every request once its files are there."""
    read_job()
    say({"ready": True})
    for request in requests():
        torch.manual_seed(request["seed"])
        folder = Path(request["folder"])
        model = random_model(request)
        batches = written_by(model, request["n_batches"] * request["n_prompts"]).unflatten(
            0, (request["n_batches"], -1)
        )
        sae = dictionary(request, model, batches, folder)
        (folder / "saebench.json").write_text(json.dumps(measured(sae, model, batches), indent=1))
        save_file(seen(sae, model, batches), folder / "seen.safetensors")
        say({"seconds": 0.0})


def random_model(request: dict[str, Any]) -> HookedTransformer:
    """Two layers, untrained."""
    d_model = request["d_model"]
    cfg = HookedTransformerConfig(
        n_layers=2,
        d_model=d_model,
        n_heads=2,
        d_head=d_model // 2,
        d_mlp=2 * d_model,
        d_vocab=request["d_vocab"],
        n_ctx=request["n_ctx"],
        act_fn="gelu",
        seed=request["seed"],
        device="cpu",
    )
    model = HookedTransformer(cfg)
    with torch.no_grad():
        model.W_E.mul_(20).add_(OFFSET)
        model.W_U.mul_(10)
    return model


@torch.no_grad()
def written_by(model: HookedTransformer, n: int) -> Tensor:
    """`n` prompts that the model itself wrote, which it therefore predicts better than with its activations zeroed."""
    tokens = torch.randint(model.cfg.d_vocab, (n, 1))
    while tokens.shape[1] < model.cfg.n_ctx:
        following = torch.multinomial(model(tokens)[:, -1].softmax(dim=-1), 1)
        tokens = torch.cat([tokens, following], dim=1)
    return tokens


@torch.no_grad()
def activations(model: HookedTransformer, batches: Tensor) -> Tensor:
    """Of every position of every prompt, `[n, d_model]`."""
    _, cache = model.run_with_cache(batches.flatten(0, 1), names_filter=[HOOK_POINT], stop_at_layer=LAYER + 1)
    return cache[HOOK_POINT].flatten(0, 1)


def dictionary(request: dict[str, Any], model: HookedTransformer, batches: Tensor, folder: Path) -> SAE:
    """SAELens' own, trained for a while, saved and opened again."""
    rows = activations(model, batches)
    sae = build(request["architecture"], rows.shape[1], request["d_sae"], request["settings"])

    def shuffled() -> Iterator[Tensor]:
        while True:
            yield rows[torch.randint(len(rows), (64,))]

    trainer(sae, chain.from_iterable([shuffled()]), request["n_steps"], 64, lr=3e-3).fit()
    sae.save_inference_model(folder)
    return SAE.load_from_disk(folder)


def as_saebench_reads_it(sae: SAE) -> SimpleNamespace:
    """The dictionary under the attributes that SAEBench asks for, which SAELens has since renamed."""
    cfg = SimpleNamespace(
        hook_name=HOOK_POINT, hook_layer=LAYER, hook_head_index=None, d_sae=sae.cfg.d_sae, architecture_str=""
    )
    return SimpleNamespace(
        cfg=cfg, device="cpu", encode=sae.encode, decode=sae.decode, W_enc=sae.W_enc, W_dec=sae.W_dec, b_enc=sae.b_enc
    )


@torch.no_grad()
def measured(sae: SAE, model: HookedTransformer, batches: Tensor) -> dict[str, Any]:
    """What SAEBench reports, in its own words."""
    view = as_saebench_reads_it(sae)

    def store() -> SimpleNamespace:
        left = iter(batches)
        return SimpleNamespace(get_batch_tokens=lambda n: next(left))

    shared = {"n_batches": len(batches), "eval_batch_size_prompts": batches.shape[1]}
    downstream = core.get_downstream_reconstruction_metrics(
        view, model, store(), compute_kl=True, compute_ce_loss=True, **shared
    )
    asked = ("l2_norms", "sparsity_metrics", "variance_metrics", "featurewise_density_statistics")
    rows, latents = core.get_sparsity_and_variance_metrics(
        view, model, store(), model_kwargs={}, **{f"compute_{name}": True for name in asked}, **shared
    )
    return downstream | rows | latents | core.get_featurewise_weight_based_metrics(view)


@torch.no_grad()
def seen(sae: SAE, model: HookedTransformer, batches: Tensor) -> dict[str, Tensor]:
    """Tokens, activations and logits `[n_prompts, n_ctx, …]`, prompts in the order of the batches."""
    tokens = batches.flatten(0, 1)
    edits = {"clean": None, "spliced": lambda x, hook: sae(x), "ablated": lambda x, hook: torch.zeros_like(x)}
    logits = {
        f"logits_{name}": model.run_with_hooks(tokens, fwd_hooks=[(HOOK_POINT, edit)] if edit else [])
        for name, edit in edits.items()
    }
    x = activations(model, batches).view(*tokens.shape, -1)
    return {"tokens": tokens, "x": x, **logits} | {"n_batches": torch.tensor(len(batches))}


if __name__ == "__main__":
    main()
