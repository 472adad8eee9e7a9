"""What an edit at a hook point costs, token by token: cross-entropy, and divergence from the model as it is.

    KL = Σ_v p(v) · (log p(v) − log q(v)), p the clean model's next-token distribution and q the edited one's

Logits are the model's own float32; what is summed over the vocabulary is summed in float64, since Σ p log p and
Σ p log q have most digits in common.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from activations.batching import Batch, batches
from activations.hook_point import HookPoint
from activations.lm import LanguageModel
from activations.progress import Progress, no_progress
from activations.sequences import TokenSequence
from activations.window import with_sinks
from store.shards import TOKEN_CLASSES

ReplaceAll = Callable[[Tensor], Tensor]
"""Vectors `[n, d_in]` to what replaces them."""
CHUNK_LOGITS = 1 << 21
"""Logits looked at together: few enough to stay in a cache between the passes over them, and enough for two threads."""


@dataclass(frozen=True)
class TokenLosses:
    """One entry for every prediction: a position whose next token is of the same document."""

    clean: Float[np.ndarray, " n"]
    """Cross-entropy in nats of the model as it is."""
    edited: dict[str, Float[np.ndarray, " n"]]
    """The same under each edit."""
    kl: dict[str, Float[np.ndarray, " n"]]
    """Divergence of each edited next-token distribution from the clean one, in nats."""
    doc_id: Int[np.ndarray, " n"]
    """Document of the position."""
    token_class: Int[np.ndarray, " n"]
    """Class of the position, as `TOKEN_CLASSES`."""
    is_edited: Bool[np.ndarray, " n"]
    """Whether the position was itself edited; others feel only edits before them."""

    def __len__(self) -> int:
        return len(self.clean)


def token_losses_under(
    lm: LanguageModel,
    sequences: Sequence[TokenSequence],
    hook_point: HookPoint,
    edits: Mapping[str, ReplaceAll],
    sink_norm: float,
    *,
    classes: Sequence[str] = ("normal",),
    batch_tokens: int = 1024,
    progress: Progress = no_progress,
) -> TokenLosses:
    """Losses clean and under each edit, on the same predictions.

    Args:
        lm: the model.
        sequences: the text.
        hook_point: where.
        edits: by name. All are given the same vectors.
        sink_norm: tokens with a larger norm at the hook point are sinks.
        classes: token classes of positions that are edited. A sequence's first position never is: it is the attention
            sink, and an edit there breaks the model for a reason that has nothing to do with what is measured.
        batch_tokens: tokens and padding per forward pass, at most.
        progress: wraps the loop over batches.
    """
    edited = [TOKEN_CLASSES[name] for name in classes]
    jobs = list(batches(sequences, batch_tokens))
    parts = [
        _of_batch(lm, batch, hook_point, edits, sink_norm, edited)
        for batch in progress(jobs, len(jobs), "cross-entropy with and without the SAE")
    ]
    return TokenLosses(
        clean=_joined([part.clean for part in parts]),
        edited={name: _joined([part.edited[name] for part in parts]) for name in edits},
        kl={name: _joined([part.kl[name] for part in parts]) for name in edits},
        doc_id=_joined([part.doc_id for part in parts], np.int64),
        token_class=_joined([part.token_class for part in parts], np.int8),
        is_edited=_joined([part.is_edited for part in parts], bool),
    )


def _of_batch(
    lm: LanguageModel,
    batch: Batch,
    hook_point: HookPoint,
    edits: Mapping[str, ReplaceAll],
    sink_norm: float,
    edited_classes: Sequence[int],
) -> TokenLosses:
    x, clean_logits = lm.capture_with_logits(batch.tokens, hook_point)
    columns = _columns(batch, x, sink_norm)
    where = batch.mask.numpy() & np.isin(columns["token_class"], edited_classes) & (columns["pos"] > 0)
    predicts = batch.mask.numpy()[:, 1:] & (columns["doc_id"][:, 1:] == columns["doc_id"][:, :-1])
    # figures are taken at all positions and picked from afterwards: picking logits would copy them
    target = batch.tokens.roll(-1, dims=1).flatten().to(x.device)
    clean = distribution(clean_logits.flatten(0, 1))
    losses, divergences = {}, {}
    for name, edit in edits.items():
        changed = _edited(x, torch.from_numpy(where).to(x.device), edit)
        found = distribution(lm.logits_from(batch.tokens, hook_point, changed).flatten(0, 1), keep_weights=False)
        losses[name] = found.cross_entropy(target)
        divergences[name] = clean.kl_to(found)

    def picked(column: Tensor) -> np.ndarray:
        return column.cpu().numpy().reshape(batch.mask.shape)[:, :-1][predicts]

    kept = {name: column[:, :-1][predicts] for name, column in columns.items()}
    return TokenLosses(
        clean=picked(clean.cross_entropy(target)),
        edited={name: picked(column) for name, column in losses.items()},
        kl={name: picked(column) for name, column in divergences.items()},
        doc_id=kept["doc_id"],
        token_class=kept["token_class"],
        is_edited=where[:, :-1][predicts],
    )


def _columns(batch: Batch, x: Tensor, sink_norm: float) -> dict[str, np.ndarray]:
    """`[batch, pos]`: document, position and class of every token; -1 is the document of padding."""
    mask = batch.mask.numpy()
    columns = {
        "doc_id": np.full(mask.shape, -1, np.int64),
        "token_class": np.full(mask.shape, TOKEN_CLASSES["normal"], np.int8),
        "pos": np.broadcast_to(np.arange(mask.shape[1]), mask.shape),
    }
    columns["doc_id"][mask] = np.concatenate([sequence.doc_ids for sequence in batch.sequences])
    columns["token_class"][mask] = np.concatenate([sequence.text_class for sequence in batch.sequences])
    return with_sinks(columns, x.flatten(2).float().norm(dim=-1).cpu().numpy(), sink_norm)


def _edited(x: Float[Tensor, "batch pos *rest"], where: Bool[Tensor, "batch pos"], edit: ReplaceAll) -> Tensor:
    out = x.clone()
    out[where] = edit(x[where].flatten(1)).to(x.dtype).view(-1, *x.shape[2:])
    return out


class Distribution(NamedTuple):
    """Next-token distributions, one a row."""

    logits: Float[Tensor, "n d_vocab"]
    weights: Float[Tensor, "n d_vocab"] | None
    """exp(logit − the row's largest): probabilities but for the factor `total`; None where they were not kept."""
    largest: Float[Tensor, "n 1"]
    total: Float[Tensor, " n"]
    """Σ weights, in float64."""

    @property
    def log_total(self) -> Float[Tensor, " n"]:
        """log Σ exp(logit), in float64."""
        return self.total.log() + self.largest.squeeze(1).double()

    def cross_entropy(self, target: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """With the tokens that came, in nats and float64."""
        return self.log_total - self.logits.gather(1, target[:, None]).squeeze(1).double()

    def kl_to(self, other: "Distribution") -> Float[Tensor, " n"]:
        """Σ p (log p − log q) with q the other one, in nats and float64; needs the weights of p."""
        assert self.weights is not None
        columns = (self.weights, self.logits, self.largest, other.logits, other.largest)
        parts = zip(*(_cut(x, self.logits) for x in columns), strict=True)
        # logit by logit, from the rows' largest: near numbers have an exact difference, two sums over them have none
        sums = [(w * ((p - top_p).sub_(q - top_q))).sum(dim=1, dtype=torch.float64) for w, p, top_p, q, top_q in parts]
        return torch.cat(sums) / self.total - (self.total.log() - other.total.log())


@torch.inference_mode()
def distribution(logits: Float[Tensor, "n d_vocab"], *, keep_weights: bool = True) -> Distribution:
    """The softmax of each row; a divergence from it needs its weights, one to it does not."""
    logits = logits.float()
    largest = logits.amax(dim=1, keepdim=True)
    weights, totals = [], []
    for some, top in zip(_cut(logits, logits), _cut(largest, logits), strict=True):
        of_some = (some - top).exp_()
        totals.append(of_some.sum(dim=1, dtype=torch.float64))
        weights += [of_some] * keep_weights
    return Distribution(logits, torch.cat(weights) if keep_weights else None, largest, torch.cat(totals))


def _cut(x: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    """Rows cut into pieces of `CHUNK_LOGITS` logits."""
    return x.split(max(1, CHUNK_LOGITS // logits.shape[1]))


def _joined(parts: list[np.ndarray], dtype: type = np.float64) -> np.ndarray:
    return np.concatenate([part.astype(dtype) for part in parts]) if parts else np.empty(0, dtype)
