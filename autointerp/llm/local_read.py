"""How likely texts are to a local model: what they share is read once, into a cache of keys and values."""

import copy
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autointerp.llm.local_model import LocalModel
from store.errors import UsageError

LOGIT_BYTES = 2**27
"""Of float32 logits that are held at once."""


def n_at_once(model: LocalModel) -> int:
    """Tokens whose logits are held at once."""
    return max(1, LOGIT_BYTES // (4 * model.d_vocab))


@torch.inference_mode()
def text_logprobs(model: LocalModel, prefix: str, texts: Sequence[str]) -> list[np.ndarray]:
    """Float64 log-probabilities, in nats, of the tokens of each text after BOS and `prefix`; each text is tokenized
    alone.

    Raises:
        TooLong: prefix and text exceed the model's window.
        UsageError: the prefix is empty and the model has no BOS to put in its place.
    """
    before, rows = _start(model, prefix), [model.encode(text) for text in texts]
    model.check(len(before) + max(map(len, rows), default=0))
    first, cache = _prefix(model, before)
    out = [np.zeros(0) for _ in rows]
    for numbers in _batches([len(row) for row in rows], n_at_once(model)):
        for i, found in zip(numbers, _after(model, first, cache, [rows[i] for i in numbers]), strict=True):
            out[i] = found
    return out


@torch.inference_mode()
def piece_choices(model: LocalModel, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
    """`[n_pieces, n_candidates]` float64 log-probabilities of each candidate right after each piece of the running
    text; each piece is tokenized alone, and the text is read once.

    Raises:
        TooLong: the pieces together exceed the model's window.
        UsageError: a candidate is not one token, or the first piece is empty and the model has no BOS.
    """
    chosen = [_one_token(model, candidate) for candidate in candidates]
    if not pieces:
        return np.zeros((0, len(chosen)))
    rows = [_start(model, pieces[0]), *(model.encode(piece) for piece in pieces[1:])]
    ids = [one for row in rows for one in row]
    model.check(len(ids))
    ends = np.array(list(accumulate(map(len, rows)))) - 1
    step, cache, found = n_at_once(model), None, []
    for start in range(0, len(ids), step):
        here = ends[(ends >= start) & (ends < start + step)] - start
        keep = torch.tensor(here if len(here) else [0], dtype=torch.long, device=model.device)
        out = model.net(
            input_ids=model.tensor([ids[start : start + step]]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        cache = out.past_key_values
        found.append(out.logits[0].double().log_softmax(-1)[: len(here)][:, chosen].cpu().numpy())
    return np.concatenate(found)


def _start(model: LocalModel, text: str) -> list[int]:
    ids = model.with_bos(model.encode(text))
    if not ids:
        raise UsageError("this model has no BOS token, so nothing comes before the text: give it a prefix")
    return ids


def _one_token(model: LocalModel, candidate: str) -> int:
    ids = model.encode(candidate)
    if len(ids) != 1:
        raise UsageError(f"candidate {candidate!r} is {len(ids)} tokens of this model: give candidates of one token")
    return ids[0]


def _prefix(model: LocalModel, ids: Sequence[int]) -> tuple[Float[Tensor, "d_vocab"], Any]:
    out = model.net(input_ids=model.tensor([ids]), use_cache=True, logits_to_keep=1)
    return out.logits[0, -1].double().log_softmax(-1), out.past_key_values


def _batches(lengths: Sequence[int], n_most: int) -> list[list[int]]:
    """Numbers of the texts that are not empty, in batches of like length of at most `n_most` tokens with padding."""
    out: list[list[int]] = []
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i]):
        if out and (len(out[-1]) + 1) * lengths[out[-1][0]] <= n_most:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def _after(
    model: LocalModel, first: Float[Tensor, "d_vocab"], cache: Any, rows: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Log-probabilities of each row after the cached prefix. Padding stands behind, where no token looks."""
    heads = [float(first[row[0]]) for row in rows]
    width = max(map(len, rows))
    if width == 1:
        return [np.array([head]) for head in heads]
    ids = model.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    here = copy.deepcopy(cache)  # reading on changes a cache, and the next batch needs this one
    here.batch_repeat_interleave(len(rows))
    logits = model.net(input_ids=ids[:, :-1], past_key_values=here, use_cache=True).logits
    tails = _picked(logits, ids[:, 1:]).cpu().numpy()
    return [np.concatenate([[head], tail[: len(row) - 1]]) for head, tail, row in zip(heads, tails, rows, strict=True)]


def _picked(logits: Float[Tensor, "batch pos d_vocab"], ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos"]:
    """Log-probability of each id; a row at a time, so that float64 is needed of one row only."""
    rows = [
        row.double().log_softmax(-1).gather(-1, wanted[:, None])[:, 0] for row, wanted in zip(logits, ids, strict=True)
    ]
    return torch.stack(rows)
