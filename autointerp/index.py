"""Build the feature index of a dictionary: one pass over the activations, one over the unembedding."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from activations.models import load_recorded
from activations.progress import Progress, no_progress
from activations.reader import Activations
from autointerp.contexts import Layout, choose
from autointerp.events import collect, peaks, statistics
from autointerp.logits import top_and_bottom
from sae import checkpoint
from sae.base import SAE
from store import layout
from store.errors import UsageError
from store.index import publish, write_part
from store.run import Run, start_run


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What to keep of every latent."""

    classes: tuple[str, ...] = ("normal",)
    """Token classes that count, first positions always left out."""
    n_top: int = 12
    """Strongest contexts kept."""
    n_bands: int = 4
    """Equal-count bands of its range, weak to strong."""
    per_band: int = 6
    """Contexts drawn from each band."""
    half_window: int = 24
    """Tokens shown on either side of a peak."""
    n_logits: int = 10
    """Most promoted and most suppressed tokens kept."""
    n_bins: int = 40
    """Bins of the activation histogram."""
    seed: int = 0
    """Of the draws from the bands."""


def only_hook_point(sae_run: Run, command: str) -> str:
    """The one place that an SAE reads and stands for; `command` is what asks.

    Raises:
        UsageError: there are others: it cannot be spliced in where it reads, nor are its decoder rows of that place.
    """
    others = sae_run.config.get("other_hook_points")
    if others:
        raise UsageError(
            f"{sae_run.config['variant']} {sae_run.id} reads or predicts {', '.join(others)} as well: `{command}` "
            f"takes SAEs of one hook point; held-out FVU and L0 are in `monosem show {sae_run.id}`"
        )
    return sae_run.config["hook_point"]


def build_index(
    cfg: IndexConfig, sae_run: Run, activations_run: Run, root: Path, progress: Progress = no_progress
) -> Run:
    """Build and publish `root/index/<hash>`, or return the one that is already there.

    Raises:
        UsageError: the SAE reads vectors of another width, or no latent fires.
    """
    activations = Activations(activations_run, only_hook_point(sae_run, "index"))
    inputs = {"sae": sae_run.id, "activations": activations_run.id}
    with start_run(root, "index", cfg, inputs) as run:
        if not run.finished:
            sae = checkpoint.load(sae_run.folder)
            check_width(sae, activations)
            run.finish(_write_parts(run, cfg, sae, activations, progress))
        publish(run, activations_run)
        return run


def check_width(sae: SAE, activations: Activations) -> None:
    """Refuse a dictionary that reads vectors of another width than the harvest has."""
    if sae.cfg.d_in != activations.d_in:
        raise UsageError(
            f"the SAE reads vectors of width {sae.cfg.d_in}, {activations.hook_point} of harvest {activations.run.id} "
            f"has {activations.d_in}: choose the harvest it was trained on"
        )


def _write_parts(
    run: Run, cfg: IndexConfig, sae: SAE, activations: Activations, progress: Progress
) -> dict[str, float | int]:
    events = collect(sae, activations, cfg.classes, progress)
    if not len(events):
        raise UsageError("no latent fires on any token of this harvest: train the SAE on activations like these")
    table = statistics(events, cfg.n_bins)
    write_part(run.folder, "latents", table)
    names = ("latent", "seq", "pos", "doc_id", "value")
    write_part(run.folder, "events", {name: getattr(events, name) for name in names})
    lm = load_recorded(activations.run, device="cpu")
    text = Layout.of(_sequences(activations.run))
    contexts = choose(peaks(events), text, cfg.half_window, cfg.n_top, cfg.n_bands, cfg.per_band, cfg.seed)
    write_part(run.folder, "contexts", contexts)
    if lm.hook_point(activations.hook_point).in_residual_basis:
        with torch.inference_mode():
            logits = top_and_bottom(sae.W_dec, lm.unembedding().float(), cfg.n_logits, progress)
        words = {token_id: lm.tokenizer.decode([token_id]) for token_id in set(logits["token_id"])}
        write_part(run.folder, "logits", {**logits, "token": [words[token_id] for token_id in logits["token_id"]]})
    alive = int((table["n_fired"] > 0).sum())  # type: ignore[operator]
    return {
        "n_latents": events.d_sae,
        "n_alive": alive,
        "n_tokens": events.n_tokens,
        "n_events": len(events),
        "l0": len(events) / events.n_tokens,
        "n_contexts": len(contexts["latent"]),
    }


def _sequences(activations: Run) -> pa.Table:
    columns = ["seq", "token_ids", "doc_ids", "char_start"]
    return pa.concat_tables(pq.read_table(path, columns=columns) for path in layout.token_parts(activations.folder))
