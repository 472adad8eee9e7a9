"""What an edit at a hook point costs: next-token cross-entropy clean and edited, on the same tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from activations.batching import batches
from activations.hook_point import HookPoint
from activations.lm import Edit, LanguageModel, token_losses
from activations.progress import Progress, no_progress
from activations.sequences import TokenSequence


@dataclass(frozen=True)
class Losses:
    """Mean next-token cross-entropy in nats, over the same predictions."""

    clean: float
    edited: dict[str, float]
    n_tokens: int
    """Predictions averaged over."""
    n_edited: int
    """Positions at which the edits were applied."""


def edited_losses(
    lm: LanguageModel,
    sequences: Sequence[TokenSequence],
    hook_point: HookPoint,
    edits: Mapping[str, Edit],
    sink_norm: float,
    batch_tokens: int = 1024,
    progress: Progress = no_progress,
) -> Losses:
    """Cross-entropy clean and under each edit; sinks, special tokens and padding are never edited.

    Args:
        lm: the model.
        sequences: the text.
        hook_point: where.
        edits: `[..., d_in]` to the same shape, by name.
        sink_norm: tokens with a larger norm at the hook point are sinks.
        batch_tokens: tokens and padding per forward pass, at most.
        progress: wraps the loop over batches.
    """
    totals = dict.fromkeys(["clean", *edits], 0.0)
    n_tokens = n_edited = 0
    jobs = list(batches(sequences, batch_tokens))
    for batch in progress(jobs, len(jobs), "cross-entropy with and without the SAE"):
        predicted = batch.mask[:, 1:]
        x = lm.capture(batch.tokens, [hook_point])[hook_point.name]
        where = _editable(lm, x, batch.tokens, batch.mask, sink_norm)
        totals["clean"] += _sum(lm, batch.tokens, predicted)
        for name, edit in edits.items():
            with lm.hooked(hook_point, _only(where, edit)):
                totals[name] += _sum(lm, batch.tokens, predicted)
        n_tokens += int(predicted.sum())
        n_edited += int(where.sum())
    means = {name: total / n_tokens for name, total in totals.items()}
    return Losses(means.pop("clean"), means, n_tokens, n_edited)


def _editable(
    lm: LanguageModel, x: Tensor, tokens: Tensor, mask: Bool[Tensor, "batch pos"], sink_norm: float
) -> Bool[Tensor, "batch pos"]:
    special = torch.isin(tokens, torch.tensor(sorted(lm.tokenizer.special_ids)))
    where = mask & ~special & (x.flatten(2).norm(dim=-1).cpu() <= sink_norm)
    where[:, 0] = False
    return where


def _only(where: Bool[Tensor, "batch pos"], edit: Edit) -> Edit:
    def apply(x: Float[Tensor, "batch pos *rest"]) -> Float[Tensor, "batch pos *rest"]:
        flat = x.flatten(2)
        return torch.where(where.to(x.device)[..., None], edit(flat).to(x.dtype), flat).view_as(x)

    return apply


def _sum(lm: LanguageModel, tokens: Tensor, predicted: Bool[Tensor, "batch pos"]) -> float:
    losses = token_losses(lm.logits(tokens), tokens)
    return float(losses[predicted.to(losses.device)].double().sum())
