"""Labelled texts through the model, once for all parts: the mean over each text's tokens of activations and latents.

Left out are special tokens, the first position and sinks, whose norms would drown all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from activations.batching import Batch, batches
from activations.labelled import Drawn, LabelledText, crossed_with_case, drawn, read_labelled
from activations.progress import Progress, no_progress
from activations.sequences import TokenSequence
from app.evaluation.subject import Subject
from sae.probing import PooledTexts
from store.shards import TOKEN_CLASSES

BATCH_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class TextsConfig:
    """How much of a labelled data set is read."""

    n_train: int = 600
    """Training texts of a data set, all classes together."""
    n_test: int = 400
    """Test texts."""
    max_tokens: int = 64
    """Tokens read of a text, from its start."""
    text_seed: int = 0
    """Which texts."""


@dataclass(frozen=True)
class PooledSet:
    """A data set, pooled."""

    name: str
    classes: tuple[str, ...]
    train: PooledTexts
    test: PooledTexts
    n_tokens: int
    """That went through the model."""


_done: "WeakKeyDictionary[Subject, dict[Any, PooledSet]]" = WeakKeyDictionary()


def pooled_set(
    subject: Subject, reference: str, cfg: TextsConfig, *, crossed: bool = False, progress: Progress = no_progress
) -> PooledSet:
    """A data set's texts by the model and the dictionary; remembered for as long as the subject is.

    Args:
        subject: the dictionary and its model.
        reference: as for `read_labelled`.
        cfg: how much of it.
        crossed: whether its first two classes are crossed with letter case.
        progress: wraps the loop over batches.

    Raises:
        UsageError: no such data set, or too little of a class.
    """
    settings = (cfg.n_train, cfg.n_test, cfg.max_tokens, cfg.text_seed)
    done = _done.setdefault(subject, {})
    key = (reference, crossed, settings)
    if key not in done:
        labelled = read_labelled(reference)
        if crossed:
            labelled = crossed_with_case(labelled, cfg.text_seed)
        done[key] = _pooled(subject, drawn(labelled, cfg.n_train, cfg.n_test, cfg.text_seed), cfg, progress)
    return done[key]


def _pooled(subject: Subject, texts: Drawn, cfg: TextsConfig, progress: Progress) -> PooledSet:
    everything = (*texts.train, *texts.test)
    encodings = subject.lm.tokenizer.encode_batch([text.text for text in everything])
    n_tokens = min(cfg.max_tokens, subject.lm.n_ctx - 1)
    sequences = [_sequence(subject, i, encoding.ids[:n_tokens]) for i, encoding in enumerate(encodings)]
    x, latents, counts = _run(subject, sequences, f"read {texts.name}", progress)
    labels = np.array([texts.classes.index(text.label) for text in everything])
    groups = _numbers(everything)
    # a text of sinks and special tokens alone has nothing to pool
    full, is_test = counts > 0, np.arange(len(everything)) >= len(texts.train)
    whole = PooledTexts(x, latents, labels, groups)
    train, test = (whole.take(np.flatnonzero(full & side)) for side in (~is_test, is_test))
    return PooledSet(texts.name, texts.classes, train, test, sum(map(len, sequences)))


def _numbers(texts: Sequence[LabelledText]) -> np.ndarray:
    return np.unique([text.group for text in texts], return_inverse=True)[1]


def _sequence(subject: Subject, number: int, ids: Sequence[int]) -> TokenSequence:
    whole = np.array(subject.lm.tokenizer.with_bos(ids), np.int32)
    nowhere = np.full(len(whole), -1, np.int32)
    normal = np.full(len(whole), TOKEN_CLASSES["normal"], np.int8)
    return TokenSequence(number, whole, np.full(len(whole), number, np.int64), nowhere, nowhere, normal)


@torch.no_grad()
def _run(
    subject: Subject, sequences: Sequence[TokenSequence], label: str, progress: Progress
) -> tuple[np.ndarray, sparse.csr_array, np.ndarray]:
    """Means of activations and latents of each sequence, and over how many tokens."""
    n, sae = len(sequences), subject.sae
    means, counts = np.zeros((n, sae.cfg.d_in)), np.zeros(n, int)
    rows, columns, values = [], [], []
    jobs = list(batches([one for one in sequences if len(one) > 1], BATCH_TOKENS))
    for batch in progress(jobs, len(jobs), label):
        x = subject.lm.capture(batch.tokens, [subject.hook_point])[subject.hook_point.name].flatten(2).float()
        kept = _kept(subject, x, batch)
        number, place = np.array([one.seq for one in batch.sequences]), kept.nonzero()[:, 0]
        tokens = x[kept.to(x.device)]
        counts[number] = kept.sum(dim=1).numpy()
        sums = torch.zeros(len(number), x.shape[2], dtype=torch.float64)
        means[number] = sums.index_add(0, place, tokens.double().cpu()).numpy()
        latents = sae.encode(tokens.to(sae.W_dec))
        rows.append(number[place.numpy()[latents.rows.cpu().numpy()]])
        columns.append(latents.indices.cpu().numpy())
        values.append(latents.values.double().cpu().numpy())
    per_token = 1 / np.maximum(counts, 1)
    row, column = np.concatenate(rows), np.concatenate(columns)
    entries = np.concatenate(values) * per_token[row]
    pooled = sparse.csr_array((entries, (row, column)), shape=(n, sae.cfg.d_sae))
    pooled.sum_duplicates()
    pooled.eliminate_zeros()
    return means * per_token[:, None], pooled, counts


def _kept(subject: Subject, x: Tensor, batch: Batch) -> Tensor:
    special = torch.isin(batch.tokens, torch.tensor(sorted(subject.lm.tokenizer.special_ids)))
    kept = batch.mask & ~special & (x.norm(dim=-1).cpu() <= subject.activations.sink_norm)
    kept[:, 0] = False
    return kept
