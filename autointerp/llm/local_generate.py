"""Replies of a local model to several prompts at once: one padded prefill, then one token of each a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autointerp.llm import Reply, Request, TokenLogprob
from autointerp.llm.local_grammar import Grammar, Walk
from autointerp.llm.local_model import LocalModel

SHORTEST_SHARED = 16
"""Tokens from which on a start that all prompts share is read once."""


@dataclass(frozen=True)
class Job:
    """A prompt as the model reads it."""

    request: Request
    ids: tuple[int, ...]
    grammar: Grammar | None
    """What the reply is held to."""


def groups(jobs: Sequence[Job], max_tokens: int) -> list[list[int]]:
    """Numbers of the jobs in batches of like length, of at most `max_tokens` with padding, or of one job."""
    order = sorted(range(len(jobs)), key=lambda i: (-len(jobs[i].ids), -jobs[i].request.max_tokens))
    out: list[list[int]] = []
    n_longest = n_most = 0
    for i in order:
        n_prompt, n_reply = len(jobs[i].ids), jobs[i].request.max_tokens
        wider = max(n_longest, n_prompt) + max(n_most, n_reply)
        if out and (len(out[-1]) + 1) * wider <= max_tokens:
            out[-1].append(i)
            n_longest, n_most = max(n_longest, n_prompt), max(n_most, n_reply)
        else:
            out.append([i])
            n_longest, n_most = n_prompt, n_reply
    return out


@torch.inference_mode()
def generate(model: LocalModel, jobs: Sequence[Job]) -> list[Reply]:
    """One reply for each job. Rows that end leave the batch."""
    writers = [_Writer(model, job) for job in jobs]
    live = writers
    out, mask = _read(model, [job.ids for job in jobs])
    while True:
        tokens = [writer.take(row) for writer, row in zip(live, out.logits[:, -1].float().cpu(), strict=True)]
        keep = [i for i, writer in enumerate(live) if not writer.finish]
        if not keep:
            return [writer.reply() for writer in writers]
        if len(keep) < len(live):
            chosen = torch.tensor(keep, device=model.device)
            out.past_key_values.batch_select_indices(chosen)
            live, mask = [live[i] for i in keep], mask[chosen]
        mask = torch.cat([mask, mask.new_ones(len(keep), 1)], dim=1)
        out = _step(model, model.tensor([[tokens[i]] for i in keep]), mask, out.past_key_values)


def _read(model: LocalModel, prompts: Sequence[Sequence[int]]) -> tuple[Any, Int[Tensor, "batch pos"]]:
    """The model's output after each prompt, and which positions of its cache are no padding."""
    n_shared = _n_shared(prompts) if len(prompts) > 1 else 0
    n_shared = n_shared if n_shared >= SHORTEST_SHARED else 0
    cache = None
    if n_shared:
        shared = model.tensor([prompts[0][:n_shared]])
        cache = _step(model, shared, torch.ones_like(shared), None).past_key_values
        cache.batch_repeat_interleave(len(prompts))
    rest = [ids[n_shared:] for ids in prompts]
    width = max(map(len, rest))
    ids = model.tensor([[0] * (width - len(row)) + list(row) for row in rest])
    mask = model.tensor([[1] * n_shared + [0] * (width - len(row)) + [1] * len(row) for row in rest])
    return _step(model, ids, mask, cache), mask


def _n_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts start with, short of the whole of any."""
    for n, column in enumerate(zip(*(prompt[:-1] for prompt in prompts), strict=False)):
        if len(set(column)) > 1:
            return n
    return min(len(prompt) - 1 for prompt in prompts)


def _step(model: LocalModel, ids: Int[Tensor, "batch new"], mask: Int[Tensor, "batch pos"], cache: Any) -> Any:
    positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    return model.net(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )


@final
class _Writer:
    """One reply as it grows."""

    def __init__(self, model: LocalModel, job: Job) -> None:
        self.model, self.job = model, job
        self.finish = ""
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._walk = None if job.grammar is None else Walk(job.grammar)
        self._random = np.random.default_rng(job.request.seed)

    def take(self, logits: Float[Tensor, "d_vocab"]) -> int:
        """Choose the next token."""
        request, walk = self.job.request, self._walk
        allowed = None if walk is None else self._allowed(walk)
        held = logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
        token = self._chosen(held)
        if token in self.model.end_ids:
            self.finish = "stop"
            return token
        self._ids.append(token)
        if request.top_logprobs:
            self._logprobs.append(self._logprob(logits, allowed, token))
        if walk is not None:
            walk.take(token)
        self.finish = "stop" if walk is not None and walk.done else ""
        if not self.finish and len(self._ids) >= request.max_tokens:
            self.finish = "length"
        return token

    def _allowed(self, walk: Walk) -> Bool[Tensor, "d_vocab"]:
        mask = walk.allowed(self.job.request.max_tokens - len(self._ids))
        mask[list(self.model.end_ids)] = walk.may_end
        return mask

    def _chosen(self, logits: Float[Tensor, "d_vocab"]) -> int:
        temperature = self.job.request.temperature
        if temperature <= 0:
            return int(logits.argmax())
        scaled = logits.double().numpy() / temperature
        total = np.exp(scaled - scaled.max()).cumsum()
        return int(np.searchsorted(total, self._random.random() * total[-1], side="right"))

    def _logprob(
        self, logits: Float[Tensor, "d_vocab"], allowed: Bool[Tensor, "d_vocab"] | None, token: int
    ) -> TokenLogprob:
        """The model's own log-probabilities, before sampling; the likeliest of those that the grammar allows."""
        logprobs = logits.double().log_softmax(0)
        ranked = logprobs if allowed is None else logprobs.masked_fill(~allowed, -torch.inf)
        best = ranked.topk(min(self.job.request.top_logprobs, len(ranked))).indices.tolist()
        top = {self.model.spelled(i): float(logprobs[i]) for i in best if ranked[i] > -torch.inf}
        return TokenLogprob(self.model.spelled(token), float(logprobs[token]), top)

    def reply(self) -> Reply:
        """What was written."""
        return Reply(
            text=self.model.decode(self._ids),
            n_tokens_in=len(self.job.ids),
            n_tokens_out=len(self._ids),
            finish=self.finish,
            logprobs=tuple(self._logprobs) if self.job.request.top_logprobs else None,
        )
