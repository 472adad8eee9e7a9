"""What a model under an edit says next, and writes: the rows of one cell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from activations.generation import generate_batch, refuse_not_finite, refuse_too_long
from activations.reading import left_padded, right_padded
from autointerp.concept import mean_over, normal_of
from autointerp.sweep.arms import CLEAN, INSTRUCTION, Arms
from autointerp.sweep.config import Cell, SweepConfig
from autointerp.sweep.judge import Judge
from autointerp.sweep.measures import distinct, first_ids, mass, repetition, share_of
from autointerp.sweep.probe import Scale
from sae.intervene import Trace
from store.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from autointerp.subject import Subject

BATCH = 16
"""Texts that are read at a time."""
Rows = list[dict[str, Any]]
Written = tuple[int, int, list[int]]
"""Number of the prompt, seed, and the ids of a continuation."""


class ReadAgain(NamedTuple):
    """Continuations as the clean model reads them."""

    nats: list[float | None]
    """Mean nats a token of each; None where it is empty."""
    means: np.ndarray
    """`[n_texts, d_in]` mean activation over its normal tokens, NaN where there is none; empty without a probe."""
    rate: np.ndarray
    """`[d_sae]` share of all their tokens that each latent fires on."""
    n_tokens: int


@dataclass
class Cells:
    """Measures cells of one sweep; what the clean model says is kept."""

    cfg: SweepConfig
    subject: "Subject"
    arms: Arms
    probe: Scale | None = None
    """Tells how much a text is about the concept, where there were texts to train one."""
    judge: Judge | None = None
    """Rates texts, where one is asked."""
    _clean: dict[str, Any] = field(default_factory=dict)
    _traces: list[Trace] = field(default_factory=list)

    def measure(self, cell: Cell) -> dict[str, Rows]:
        """The rows of a cell by table: `measures`, `texts` and `moved`.

        Raises:
            UsageError: the edit leaves no finite logits, or a prompt does not fit.
        """
        prompts = self.prompts(cell)
        self._traces.clear()
        rows = self._next(cell, prompts) + ([] if cell.arm == INSTRUCTION else self._kept(cell))
        rows += self._length() if cell.edit is not None else []
        written = [
            (item, seed, ids)
            for seed in range(self.cfg.n_seeds)
            for item, ids in enumerate(self._write(cell, prompts, seed))
        ]
        texts = [
            {"item": item, "seed": seed, "text": self.subject.lm.tokenizer.decode(ids)} for item, seed, ids in written
        ]
        # As the other arms' texts are: likely after the prompt itself, whatever was said before it.
        again = self._read_again(written)
        rows += self._of_texts(written, again) + self._rated(texts)
        found = {"measures": rows, "texts": texts, "moved": self._moved(cell, again)}
        return {table: [cell.place | row for row in own] for table, own in found.items()}

    @cached_property
    def bare(self) -> list[list[int]]:
        """Ids of the prompts."""
        return [self.subject.ids(prompt) for prompt in self.cfg.prompts]

    def prompts(self, cell: Cell) -> list[list[int]]:
        """Ids of what is continued.

        Raises:
            UsageError: one does not fit.
        """
        told = cell.arm == INSTRUCTION
        ids = [self.subject.ids(f"{self.cfg.instruction} {each}") for each in self.cfg.prompts] if told else self.bare
        refuse_too_long(self.subject.lm, max(map(len, ids)), self.cfg.n_tokens)
        return ids

    @cached_property
    def words(self) -> list[int]:
        """Ids that begin the concept's words."""
        return first_ids(self.subject.lm.tokenizer, self.cfg.words)

    def _edited(self, cell: Cell) -> "AbstractContextManager[object]":
        edit = self.arms.begin(cell)
        if edit is None:
            return self.subject.busy
        self._traces.append(edit.trace)
        return self.subject.edited(edit)

    def _length(self) -> Rows:
        """By what share of its length x was changed where it was, on the prompts and the retained texts."""
        lengths = [each for trace in self._traces for each in trace.lengths]
        every = torch.cat(lengths) if lengths else torch.empty(0)
        self._traces.clear()
        return [_row("prompts", 0, None, "share_of_norm", float(every.double().mean()) if len(every) else None)]

    def _next(self, cell: Cell, prompts: list[list[int]]) -> Rows:
        """After each prompt: the concept's words, and KL(clean ‖ edited) of the next token."""
        parts = []
        for at in range(0, len(prompts), BATCH):
            with self._edited(cell):
                logits, _ = self.subject.lm.step(*left_padded(prompts[at : at + BATCH]))
            refuse_not_finite(logits, 0)
            parts.append(logits.double().log_softmax(-1).cpu())
        said = torch.cat(parts)
        clean = self._clean.setdefault("next", said)
        kl = (clean.exp() * (clean - said)).sum(dim=1)
        own = {"mass": mass(said.numpy(), self.words), "kl": kl.numpy()}
        return [
            _row("prompts", item, None, name, value)
            for name, values in own.items()
            if name != "kl" or cell.arm != INSTRUCTION
            for item, value in enumerate(values)
        ]

    def _kept(self, cell: Cell) -> Rows:
        """On texts without the concept: mean KL(clean ‖ edited) of every next token, and the loss."""
        rows = []
        for at in range(0, len(self.cfg.retain), BATCH):
            ids = [self.subject.ids(text) for text in self.cfg.retain[at : at + BATCH]]
            tokens, real = right_padded(ids)
            with self._edited(cell):
                logits = self.subject.lm.logits(tokens, real)
            refuse_not_finite(logits[real.to(logits.device)], 0)
            said = logits.float().log_softmax(-1).cpu()
            clean = said if cell.arm == CLEAN else self._clean_of(tokens, real)
            for i, own in enumerate(ids):
                after, before = said[i, : len(own)].double(), clean[i, : len(own)].double()
                kl = (before.exp() * (before - after)).sum(dim=-1).mean()
                rows.append(_row("retain", at + i, None, "kl_retain", float(kl)))
                if len(own) > 1:
                    nll = -after[:-1].gather(1, torch.tensor(own[1:])[:, None]).mean()
                    rows.append(_row("retain", at + i, None, "loss_retain", float(nll)))
        return rows

    def _clean_of(self, tokens: Tensor, real: Tensor) -> Tensor:
        """What the clean model says of a batch, asked again: kept for all it would fill the memory."""
        with self.subject.busy:
            return self.subject.lm.logits(tokens, real).float().log_softmax(-1).cpu()

    def _write(self, cell: Cell, prompts: list[list[int]], seed: int) -> list[list[int]]:
        """A continuation of each prompt; that of a prompt and a seed is drawn alike in every cell."""
        written: list[list[int]] = []
        for at in range(0, len(prompts), BATCH):
            seeds = [self.cfg.seed + seed * len(prompts) + item for item in range(at, min(at + BATCH, len(prompts)))]
            with self._edited(cell):
                written += generate_batch(
                    self.subject.lm, prompts[at : at + BATCH], self.cfg.n_tokens, self.cfg.temperature, seeds
                )
        return written

    def _of_texts(self, written: Sequence[Written], again: "ReadAgain") -> Rows:
        """Of every continuation: how likely it is to the clean model, how it repeats itself, and whether it is about
        the concept."""
        rows = []
        probed = [None] * len(written) if self.probe is None else self.probe(again.means).tolist()
        for (item, seed, ids), nll, about in zip(written, again.nats, probed, strict=True):
            own = {
                **({} if self.probe is None else {"probe": about}),
                "log_perplexity": nll,
                "distinct_1": distinct(ids, 1),
                "distinct_2": distinct(ids, 2),
                "repetition": repetition(ids),
                "words": share_of(ids, self.words),
                "empty": float(not ids),
            }
            rows += [_row("prompts", item, seed, name, value) for name, value in own.items()]
        return rows

    def _rated(self, texts: Rows) -> Rows:
        """What the judge says of every continuation."""
        if self.judge is None:
            return []
        said = self.judge.rate([each["text"] for each in texts])
        return [
            _row("prompts", text["item"], text["seed"], name, value)
            for name, values in said.items()
            for text, value in zip(texts, values, strict=True)
        ]

    def _read_again(self, written: Sequence[Written]) -> "ReadAgain":
        """The continuations to the clean model, each after its bare prompt."""
        nats, fired, n = [], np.zeros(self.subject.sae.cfg.d_sae), 0
        means = [np.empty((0, self.subject.sae.cfg.d_in))]
        for at in range(0, len(written), BATCH):
            several = written[at : at + BATCH]
            starts = [len(self.bare[item]) for item, _, _ in several]
            every = [[*self.bare[item], *ids] for item, _, ids in several]
            tokens, real = right_padded(every)
            new = real & (torch.arange(tokens.shape[1]) >= torch.tensor(starts)[:, None])
            with self.subject.busy, torch.inference_mode():
                x, logits = self.subject.lm.capture_with_logits(tokens, self.subject.hook)
                x = x.flatten(2)
                latents = self.subject.sae.encode(x[new].to(self.subject.sae.W_dec))
            if self.probe is not None:
                x = x.float().cpu()
                means.append(mean_over(x, new & normal_of(self.subject, every, x)))
            said = logits.float().log_softmax(-1).cpu()
            nats += [_mean_nats(row, start, ids) for row, start, (_, _, ids) in zip(said, starts, several, strict=True)]
            fired += torch.bincount(latents.indices[latents.values > 0], minlength=len(fired)).cpu().numpy()
            n += int(new.sum())
        return ReadAgain(nats, np.concatenate(means), fired / max(n, 1), n)

    def _moved(self, cell: Cell, again: "ReadAgain", n: int = 10) -> Rows:
        """Other latents that fire more or less often on what was written, read by the clean model."""
        clean = self._clean.setdefault("rate", again.rate)
        if cell.edit is None:
            return []
        change = again.rate - clean
        change[list(self.arms.edited(cell))] = 0
        order = np.argsort(-np.abs(change), kind="stable")[:n]
        return [
            {"latent": int(i), "change": float(change[i]), "n_tokens": again.n_tokens} for i in order if change[i] != 0
        ]


def not_finite(cell: Cell) -> dict[str, Rows]:
    """What is kept of a cell that broke the model: that it did."""
    return {"measures": [cell.place | _row("prompts", 0, None, "not_finite", 1.0)], "texts": [], "moved": []}


def _mean_nats(logprobs: Tensor, start: int, ids: list[int]) -> float | None:
    """Of `ids`, which stand from `start` on, under `[pos, d_vocab]` log-probabilities of the next token."""
    if not ids:
        return None
    own = logprobs[start - 1 : start - 1 + len(ids)].double()
    return -float(own.gather(1, torch.tensor(ids)[:, None]).mean())


def _row(text_of: str, item: int, seed: int | None, measure: str, value: float | None) -> dict[str, Any]:
    finite = value is not None and np.isfinite(value)
    return {
        "text_of": text_of,
        "item": item,
        "seed": seed,
        "measure": measure,
        "value": float(value) if finite else None,  # pyright: ignore[reportArgumentType]
    }


def refuse_texts(cfg: SweepConfig, subject: "Subject") -> None:
    """Refuse texts that do not fit, or stand where they tell nothing, before anything is measured.

    Raises:
        UsageError: one does not; or one is with the concept and without it, or both measured and learned from.
    """
    if both := set(cfg.concept_texts) & set(cfg.retain):
        raise UsageError(f"'{min(both)[:60]}' is with the concept and retained: take it out of one of the two")
    if seen := set(cfg.concept_texts) & set(cfg.prompts):
        raise UsageError(f"'{min(seen)[:60]}' is a prompt and among the concept's texts: take it out of one of the two")
    for text in (*cfg.prompts, *cfg.retain, *cfg.concept_texts):
        if not text.strip():
            raise UsageError("a text is empty: leave the line out")
        subject.ids(text)
