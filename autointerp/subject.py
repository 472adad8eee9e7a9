"""The model that an index is of, with its dictionary: where latents fire in new texts, and what steering does."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.lm import LanguageModel, Splice
from activations.models import load_recorded
from activations.reading import right_padded
from activations.statistics import mean_norm
from activations.window import with_sinks
from autointerp.pairing import only_hook_point
from autointerp.steering import Direction, Found, Steered, Text, TokenChange, strengths_at
from sae import checkpoint
from sae.base import SAE
from sae.edits import InterventionConfig
from sae.intervene import Edit, Intervention, push
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.latents import Logit, Window
from store.run import Run, find_run
from store.shards import TOKEN_CLASSES

BATCH = 16
"""Texts that are read at a time."""


@final
class Subject:
    """A model and its dictionary, asked by one at a time: edits are in the model while it runs."""

    def __init__(
        self,
        lm: LanguageModel,
        sae: SAE,
        hook_point: str,
        sink_norm: float,
        units: np.ndarray,
        mean_norm: float | None = None,
    ) -> None:
        """Ask `lm` through `sae`.

        Args:
            lm: the model.
            sae: reads and stands for `hook_point`.
            hook_point: a name in it.
            sink_norm: tokens whose activations are longer are sinks, in which latents do not count as firing.
            units: `[d_sae]` a high activation of each latent, 0 for one that never fired.
            mean_norm: mean length of activations on the harvest's normal tokens, if it is known.
        """
        self.lm, self.sae, self.hook = lm, sae, lm.hook_point(hook_point)
        self.sink_norm, self.units, self.mean_norm = sink_norm, units, mean_norm
        self.alive = np.flatnonzero(units > 0)
        self.busy = threading.RLock()

    @classmethod
    def open(cls, index_run: Run, root: Path) -> "Subject":
        """The model and the dictionary of an index.

        Raises:
            UsageError: the index was imported, and has neither here; or one of them is gone, or is another.
        """
        if "sae" not in index_run.inputs:
            raise UsageError(
                f"index {index_run.id} was imported, so there is no model to steer: score with scorers that read "
                "contexts only, such as embedding or detection"
            )
        sae_run = find_run(root, index_run.inputs["sae"], "sae")
        activations_run = find_run(root, index_run.inputs["activations"], "activations")
        hook_point = only_hook_point(sae_run, "steer")
        sink_norm = activations_run.results["hook_points"][hook_point]["sink_norm"]
        units = FeatureIndex(index_run.folder).arrow("SELECT q999 FROM latents ORDER BY latent").column(0)
        return cls(
            load_recorded(activations_run),
            checkpoint.load(sae_run.folder),
            hook_point,
            sink_norm,
            np.nan_to_num(np.asarray(units.to_numpy(zero_copy_only=False), float)),
            mean_norm(activations_run, hook_point),
        )

    def ids(self, text: Text) -> list[int]:
        """BOS where the model has one, then the text's tokens.

        Raises:
            UsageError: there is no text, or more than the model's context.
        """
        own = list(text.token_ids) if isinstance(text, Window) else self.lm.tokenizer.encode(text).ids
        ids = self.lm.tokenizer.with_bos(own)
        if not own:
            raise UsageError("there is no text to read: give at least one word")
        if len(ids) > self.lm.n_ctx:
            raise UsageError(f"the text has {len(ids)} tokens, the model reads {self.lm.n_ctx}: shorten it")
        return ids

    def n_tokens(self, texts: Sequence[Text]) -> list[int]:
        """Length of each text to this model, BOS included."""
        own = (text.token_ids if isinstance(text, Window) else self.lm.tokenizer.encode(text).ids for text in texts)
        return [len(self.lm.tokenizer.with_bos(list(ids))) for ids in own]

    def cut(self, text: str, n_tokens: int) -> str:
        """The text's start, of at most `n_tokens` as `n_tokens` counts."""
        encoding = self.lm.tokenizer.encode(text)
        n_own = n_tokens - len(self.lm.tokenizer.with_bos([]))
        # Up to where the next token begins: a character that is several tokens is in whole or not at all.
        return text if len(encoding.ids) <= n_own else text[: max(encoding.char_start[max(n_own, 1)], 1)]

    def classes(self, ids: Sequence[int], norms: np.ndarray) -> np.ndarray:
        """`[n]` class of each token, as in `store.shards.TOKEN_CLASSES`: sinks and special tokens trained nothing."""
        special = np.isin(ids, sorted(self.lm.tokenizer.special_ids))
        classes = np.where(special, TOKEN_CLASSES["special"], TOKEN_CLASSES["normal"])
        return with_sinks({"pos": np.arange(len(ids)), "token_class": classes}, norms, self.sink_norm)["token_class"]

    def rows(self, ids: Sequence[int]) -> Float[Tensor, "pos d_in"]:
        """Activations of one sequence at the hook point, per-head ones side by side as they were in training."""
        with self.busy, torch.inference_mode():
            return self.lm.capture(torch.tensor([list(ids)]), [self.hook])[self.hook.name].flatten(2)[0].float()

    def activations(self, latent: int, texts: Sequence[Text]) -> list[np.ndarray]:
        """Per text `[n_tokens]`, BOS first where the model has one: a latent's activation, 0 on sinks and specials."""
        return [self._activations(latent, self.ids(text)) for text in texts]

    def _activations(self, latent: int, ids: list[int]) -> np.ndarray:
        x = self.rows(ids)
        with torch.inference_mode():
            values = self.sae.encode(x.to(self.sae.W_dec.device, self.sae.W_dec.dtype)).select(latent).cpu().numpy()
        normal = self.classes(ids, x.norm(dim=1).cpu().numpy()) == TOKEN_CLASSES["normal"]
        return np.where(normal, values, 0.0)

    def peaks(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        """`[n_texts]` highest activation of a latent in each text."""
        return np.array([values.max() for values in self.activations(latent, texts)])

    def fires(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        """`[n_texts]` whether a latent fires anywhere in each text."""
        return self.peaks(latent, texts) > 0

    def random_direction(self, latent: int, seed: int) -> np.ndarray:
        """`[d_in]` a direction drawn from all alike, with the norm of the latent's decoder row."""
        drawn = np.random.default_rng(seed).standard_normal(self.sae.cfg.d_in)
        return drawn * (np.linalg.norm(self._row(latent)) / np.linalg.norm(drawn))

    @contextmanager
    def edited(self, edit: Edit) -> Iterator[Splice]:
        """While the context lasts, `edit` sees every pass, heads side by side; first positions are left alone."""
        with self.busy, self.lm.splice(self.hook, lambda x, *where: edit(x.flatten(2), *where).view_as(x)) as splice:
            yield splice

    def next_logprobs(
        self, prompts: Sequence[Text], directions: Sequence[Direction] = (), strengths: Sequence[float] = ()
    ) -> np.ndarray:
        """`[n_prompts, d_vocab]` log-probabilities, in nats, of the token after each prompt: clean, or with
        `strengths[i] · directions[i]` added under prompt i."""
        ids = [self.ids(prompt) for prompt in prompts]
        parts = []
        for at in range(0, len(ids), BATCH):
            several = slice(at, at + BATCH)
            with self._pushed(directions[several], strengths[several]):
                parts.append(self._last_logprobs(ids[several]))
        return np.concatenate(parts)

    def strengths(self, directions: Sequence[Direction], prompts: Sequence[Text], kl: float) -> Found:
        """`[n]` strength of direction i at which KL(clean ‖ steered) after prompt i is `kl` nats, and the KL there."""
        clean = self.next_logprobs(prompts)
        norms = np.array([float(self.rows(self.ids(prompt))[-1].norm()) for prompt in prompts])
        lengths = np.array([np.linalg.norm(self._row(direction)) for direction in directions])

        def kl_at(strengths: np.ndarray, which: np.ndarray) -> np.ndarray:
            asked, along = [prompts[i] for i in which], [directions[i] for i in which]
            return divergence(clean[which], self.next_logprobs(asked, along, strengths.tolist()))

        return strengths_at(kl_at, kl, 0.5 * norms / np.maximum(lengths, 1e-12))

    def steer(
        self,
        direction: Direction | Sequence[Direction],
        prompts: Sequence[Text],
        *,
        strength: float | None = None,
        kl: float | None = None,
        n_tokens: int = 16,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Steered | None]:
        """A continuation of each prompt with strength · decoder row added at every position but the first, so that
        the SAE's error term stays.

        Args:
            direction: one for all prompts, or one for each.
            prompts: what is continued.
            strength: the same for all; 0 is the clean model.
            kl: instead, the KL(clean ‖ steered) in nats of the token after the prompt; each prompt gets the strength
                that has it, or None where none has.
            n_tokens: new tokens at most.
            temperature: 0 is greedy.
            seed: prompt i is continued from `seed + i`, whatever the direction.

        Raises:
            UsageError: neither or both of `strength` and `kl`, or a prompt that does not fit.
        """
        each = list(direction) if isinstance(direction, Sequence) else [direction] * len(prompts)
        strengths, effects = self._asked(each, prompts, strength, kl)
        jobs = zip(each, prompts, strengths.tolist(), effects.tolist(), range(seed, seed + len(prompts)), strict=True)
        return [
            None if np.isnan(s) else Steered(self._continued(row, prompt, s, n_tokens, temperature, own_seed), s, e)
            for row, prompt, s, e, own_seed in jobs
        ]

    def _asked(
        self, directions: Sequence[Direction], prompts: Sequence[Text], strength: float | None, kl: float | None
    ) -> Found:
        """Strengths and effects, from whichever of the two was given."""
        if (strength is None) == (kl is None):
            raise UsageError("steering takes a strength or a KL: give one of the two")
        if kl is not None:
            return self.strengths(directions, prompts, kl)
        strengths = np.full(len(prompts), strength, float)
        steered = self.next_logprobs(prompts, directions, strengths.tolist())
        return Found(strengths, divergence(self.next_logprobs(prompts), steered))

    def _continued(
        self, direction: Direction, prompt: Text, strength: float, n_tokens: int, temperature: float, seed: int
    ) -> str:
        ids = self.ids(prompt)
        if len(ids) + n_tokens > self.lm.n_ctx:
            raise UsageError(f"prompt and answer have {len(ids) + n_tokens} tokens, the model reads {self.lm.n_ctx}")
        with self._pushed([direction], [strength]):
            return self.lm.tokenizer.decode(self.lm.generate(ids, n_tokens, temperature, seed))

    def token_change(self, latent: int, contexts: Sequence[Text], n: int = 10) -> TokenChange:
        """The next tokens whose logits change most, on average over the contexts' positions but the first, when the
        latent is held at a high activation (its q99.9). Gur-Arieh et al. 2025, arXiv:2501.08319, section 3.

        Raises:
            UsageError: the latent never fired, so there is nothing to hold it at.
        """
        if not self.units[latent] > 0:
            raise UsageError(f"latent {latent} never fired on the harvested text, so it has no value to be held at")
        ids = [ids for ids in map(self.ids, contexts) if len(ids) > 1]
        if not ids:
            raise UsageError("no context has two tokens, and the first is left alone: give longer ones")
        held = InterventionConfig(latents=(latent,), values=(float(self.units[latent]),))
        edit = Intervention(self.sae, held).begin()
        parts = [self._change(ids[at : at + BATCH], edit) for at in range(0, len(ids), BATCH)]
        n_positions = sum(len(each) - 1 for each in ids)
        change = np.sum(parts, axis=0) / n_positions
        change -= change.mean()
        order = np.argsort(-change, kind="stable")
        return TokenChange(self._logits(order[:n], change), self._logits(order[::-1][:n], change), n_positions)

    def _change(self, ids: list[list[int]], edit: Edit) -> np.ndarray:
        tokens, real = right_padded(ids)
        counted = real & (torch.arange(tokens.shape[1]) > 0)
        with self.busy, torch.inference_mode():
            clean = self.lm.logits(tokens)
            with self.edited(edit):
                changed = self.lm.logits(tokens)
            return (changed.float() - clean.float())[counted.to(clean.device)].sum(0, dtype=torch.float64).cpu().numpy()

    def _logits(self, token_ids: np.ndarray, change: np.ndarray) -> tuple[Logit, ...]:
        return tuple(Logit(i, self.lm.tokenizer.decode([i]), float(change[i])) for i in token_ids.tolist())

    @contextmanager
    def _pushed(self, directions: Sequence[Direction], strengths: Sequence[float]) -> Iterator[None]:
        if not len(directions):
            with self.busy:
                yield
            return
        rows = torch.from_numpy(np.stack([self._row(direction) for direction in directions])).to(self.sae.W_dec)
        with self.edited(push(rows, torch.tensor(strengths).to(rows))):
            yield

    def _last_logprobs(self, ids: list[list[int]]) -> np.ndarray:
        tokens, real = right_padded(ids)
        with torch.inference_mode():
            logits = self.lm.logits(tokens)
            return logits[torch.arange(len(ids)), real.sum(dim=1) - 1].double().log_softmax(-1).cpu().numpy()

    def _row(self, direction: Direction) -> np.ndarray:
        if isinstance(direction, np.ndarray):
            return direction
        if not 0 <= direction < self.sae.cfg.d_sae:
            raise UsageError(f"there is no latent {direction}: choose one of 0 to {self.sae.cfg.d_sae - 1}")
        return self.sae.W_dec[direction].detach().double().cpu().numpy()


def divergence(clean: np.ndarray, steered: np.ndarray) -> np.ndarray:
    """`[n]` KL(clean ‖ steered) in nats of `[n, d_vocab]` log-probabilities."""
    return (np.exp(clean) * (clean - steered)).sum(axis=1)
