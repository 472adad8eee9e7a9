"""Core figures on SmolLM2's own activations and logits, against direct two-pass sums in float64.

Run from anywhere: `python bench/evaluate_oracle.py`. The oracle holds all rows at once and uses nothing of
`sae.metrics` or `activations.losses`; both are given the same reconstructions and the same float32 logits.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from activations.harvest import harvest
from activations.losses import distribution
from activations.models import DEFAULT_MODEL
from activations.prepare import heldout_sequences
from activations.reader import Activations
from app.evaluation.subject import Subject
from bench.evaluate_core import D_SAE, HOOK_POINT, trained
from bench.harness import Figure, main, write
from bench.sides import N_THREADS, config
from sae.metrics import StreamingEvaluation, loss_recovered

N_TOKENS, N_SEQUENCES = 40_000, 8
REACH = "<= 1e-06"


def measure() -> bool:
    """Both ways, and the largest relative difference of each figure."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        activations = harvest(config(DEFAULT_MODEL, (HOOK_POINT,), "english", N_TOKENS), root)
        subject = Subject(trained(activations, root, n_steps=200), activations)
        differences = over_rows(subject) | over_logits(subject)
    figures = [Figure(f"{name}, relative difference", value, "", REACH) for name, value in differences.items()]
    return write("evaluate_oracle", figures, model=DEFAULT_MODEL, hook_point=HOOK_POINT, d_sae=D_SAE)


@torch.no_grad()
def over_rows(subject: Subject) -> dict[str, float]:
    """FVU, L0 and density of all held-out rows, sinks with their giant norms among them."""
    rows = Activations(subject.activations_run, HOOK_POINT).rows("heldout", ("normal", "sink"), first=True)
    streamed, x_hat, active = StreamingEvaluation(subject.sae), [], []
    for some in rows.in_order(1000):
        out = streamed.update(some)
        x_hat.append(out.x_hat.double())
        active.append(out.latents.dense() != 0)
    x, found = torch.cat(list(rows.in_order())).double(), streamed.value()
    error = (x - torch.cat(x_hat)).square().sum()
    fired = torch.cat(active).double()
    density = found.counts.double() / found.n_rows
    return {
        "FVU": relative(found.fvu, error / (x - x.mean(dim=0)).square().sum()),
        "L0": relative(found.l0, fired.sum(dim=1).mean()),
        "density": float((density - fired.mean(dim=0)).abs().max() / fired.mean(dim=0).max()),
    }


@torch.inference_mode()
def over_logits(subject: Subject) -> dict[str, float]:
    """Cross-entropy and KL recovered against zero ablation, over the same logits."""
    lm, hook_point = subject.lm, subject.hook_point
    ours: dict[str, list[Tensor]] = {}
    oracle: dict[str, list[Tensor]] = {}
    for sequence in heldout_sequences(subject.activations.run.folder, N_SEQUENCES, 0):
        tokens = torch.from_numpy(sequence.ids.astype("int64"))[None]
        x = lm.capture(tokens, [hook_point])[hook_point.name]
        edits = {"spliced": subject.sae(x[0]).x_hat[None], "ablated": torch.zeros_like(x)}
        edited = {name: torch.cat([x[:, :1], new[:, 1:]], dim=1) for name, new in edits.items()}
        logits = {
            name: lm.logits_from(tokens, hook_point, new)[0, :-1] for name, new in ({"clean": x} | edited).items()
        }
        log_p = {name: some.double().log_softmax(-1) for name, some in logits.items()}
        for name in logits:
            ours.setdefault(f"ce {name}", []).append(distribution(logits[name]).cross_entropy(tokens[0, 1:]))
            oracle.setdefault(f"ce {name}", []).append(-log_p[name].gather(1, tokens[0, 1:, None]).squeeze(1))
            ours.setdefault(f"kl {name}", []).append(distribution(logits["clean"]).kl_to(distribution(logits[name])))
            kl = (log_p["clean"].exp() * (log_p["clean"] - log_p[name])).sum(1)
            oracle.setdefault(f"kl {name}", []).append(kl)
    found, direct = ({name: torch.cat(parts).mean().item() for name, parts in side.items()} for side in (ours, oracle))
    return {
        "cross-entropy recovered": relative(*(recovered(side, "ce") for side in (found, direct))),
        "KL divergence": relative(found["kl spliced"], direct["kl spliced"]),
        "KL recovered": relative(*(recovered(side, "kl") for side in (found, direct))),
    }


def recovered(means: dict[str, float], which: str) -> float | None:
    """The share of the ablation's cost."""
    return loss_recovered(means[f"{which} clean"], means[f"{which} spliced"], means[f"{which} ablated"])


def relative(ours: float | None, oracle: float | Tensor | None) -> float:
    """|ours − oracle| / |oracle|."""
    assert ours is not None
    assert oracle is not None
    return abs(ours - float(oracle)) / abs(float(oracle))


if __name__ == "__main__":
    main(measure)
