"""The evaluation job: what a dictionary keeps of held-out documents, by token class and in the model's own loss."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from activations.losses import Losses, edited_losses
from activations.models import load_recorded
from activations.prepare import heldout_sequences
from activations.progress import Progress, no_progress
from activations.reader import Activations, RowSet
from autointerp.index import only_hook_point
from sae import checkpoint
from sae.base import SAE
from sae.metrics import Evaluation, evaluate, loss_recovered
from store.errors import UsageError
from store.run import Run, start_run

# The groups of held-out rows that figures are given for: never one number silently over all of them.
GROUPS: dict[str, tuple[str, ...]] = {
    "normal": ("normal",),
    "sink": ("sink",),
    "all_but_first": ("normal", "special", "role", "sink"),
}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How much to evaluate on."""

    n_sequences: int = 40
    """Held-out sequences run through the whole model for cross-entropy; all of them if there are fewer."""
    seed: int = 0
    """Which sequences."""


def evaluate_sae(
    cfg: EvaluateConfig, sae_run: Run, activations_run: Run, root: Path, progress: Progress = no_progress
) -> Run:
    """Evaluate into `root/evaluation/<hash>`, or return what is already there.

    Raises:
        UsageError: the SAE reads another width than the harvest has.
    """
    inputs = {"sae": sae_run.id, "activations": activations_run.id}
    hook_point = only_hook_point(sae_run, "evaluate")
    with start_run(root, "evaluation", cfg, inputs) as run:
        if not run.finished:
            activations = Activations(activations_run, hook_point)
            sae = checkpoint.load(sae_run.folder)
            if sae.cfg.d_in != activations.d_in:
                raise UsageError(
                    f"the SAE reads width {sae.cfg.d_in}, harvest {activations_run.id} has {activations.d_in}: "
                    "evaluate it on the harvest it was trained on"
                )
            run.finish({**_reconstruction(sae, activations, progress), **_losses(cfg, sae, activations, progress)})
        return run


def _reconstruction(sae: SAE, activations: Activations, progress: Progress) -> dict[str, Any]:
    by_class: dict[str, dict[str, Any]] = {}
    for group, classes in GROUPS.items():
        found = _evaluated(sae, activations.rows("heldout", classes))
        by_class[group] = {"n_rows": found.n_rows if found else 0} | (_told(found) if found else {})
    everything = activations.rows("all", ("normal", "special", "role", "sink"))
    over_all = evaluate(sae, _shown(everything, progress))
    n_dead = int((over_all.counts == 0).sum())
    return {
        "fvu": by_class["normal"].get("fvu"),
        "l0": by_class["normal"].get("l0"),
        "n_dead": n_dead,
        "n_dead_of": sae.cfg.d_sae,
        "n_dead_tokens": over_all.n_rows,
        "heldout": by_class,
    }


def _told(found: Evaluation) -> dict[str, Any]:
    """Its figures; bits only of SAEs that have codes."""
    bits = {} if found.bits_per_row is None else {"bits_per_row": found.bits_per_row}
    return {name: getattr(found, name) for name in ("fvu", "l0", "cosine", "l2_ratio")} | bits


def _evaluated(sae: SAE, rows: RowSet) -> Evaluation | None:
    """None where there is no row. Not asked beforehand: of vectors that are computed again, sinks are not known yet."""
    batches = rows.in_order()
    first = next(batches, None)
    return None if first is None else evaluate(sae, chain([first], batches))


def _shown(rows: RowSet, progress: Progress) -> Any:
    return progress(rows.in_order(), len(rows), "look for dead latents", weigh=len)


def _losses(cfg: EvaluateConfig, sae: SAE, activations: Activations, progress: Progress) -> dict[str, Any]:
    lm = load_recorded(activations.run)
    sequences = heldout_sequences(activations.run.folder, cfg.n_sequences, cfg.seed)
    mean = torch.tensor(activations.moments().mean, dtype=torch.float32)

    @torch.no_grad()
    def reconstruct(x: Tensor) -> Tensor:
        return sae(x.reshape(-1, x.shape[-1]).float()).x_hat.view(x.shape)

    edits = {"spliced": reconstruct, "mean_ablated": lambda x: mean.to(x).expand(x.shape)}
    hook_point = lm.hook_point(activations.hook_point)
    losses: Losses = edited_losses(lm, sequences, hook_point, edits, activations.sink_norm, progress=progress)
    return {
        "loss_clean": losses.clean,
        "loss_spliced": losses.edited["spliced"],
        "loss_mean_ablated": losses.edited["mean_ablated"],
        "loss_recovered": loss_recovered(losses.clean, losses.edited["spliced"], losses.edited["mean_ablated"]),
        "loss_baseline": "mean ablation",
        "loss_n_tokens": losses.n_tokens,
        "loss_n_edited": losses.n_edited,
        "loss_n_documents": len({int(doc_id) for sequence in sequences for doc_id in sequence.doc_ids}),
    }
