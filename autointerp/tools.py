"""What explainers and scorers may use; each tool is opened when the first of them asks for it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from autointerp.embedders import EMBEDDERS, Embedder
from autointerp.llm import BACKENDS, LLM, Reader
from autointerp.llm.config import LLMConfig, backend_of, open_llm
from autointerp.llm.metered import told
from autointerp.rows import Rows
from autointerp.sample import Sampler
from autointerp.steering import Steerable
from store.errors import UsageError
from store.ledger import Spend
from store.replies import Kept, Replies, replies_file
from store.run import find_run

RANGES = {"per_prompt": (1, 100), "top_logprobs": (0, 20)}
"""Lowest and highest; judges lose count of longer lists, and services tell no more alternatives."""
WAYS_OUT = {"per_prompt": "25 suits most judges", "top_logprobs": "5 is enough for yes and no, 0 asks for none"}


@dataclass(frozen=True, kw_only=True)
class ToolsConfig:
    """Which tools."""

    llm: LLMConfig = field(default_factory=LLMConfig)
    embedder: str = "minilm"
    """What compares texts: minilm (a small model) or hashed (counts of words and pairs, no model)."""
    load: str = ""
    """What `noop` loads: a run's id or folder, `latest`, a JSON or CSV file, or Neuronpedia's export."""
    per_prompt: int = 25
    """Most contexts that a judge is asked about in one prompt: fewer is dearer, and may be judged better."""
    top_logprobs: int = 0
    """Alternatives asked for with each token of a judge's reply, which tell how sure it is; 0 for none."""

    def check(self) -> None:
        """Refuse what there is none of, before anything is begun.

        Raises:
            UsageError: no such backend, or no such embedder.
        """
        for name, table, what in ((self.llm.backend, BACKENDS, "LLM backend"), (self.embedder, EMBEDDERS, "embedder")):
            if name not in table:
                raise UsageError(f"no {what} '{name}': choose one of {', '.join(table)}")

    @property
    def identity(self) -> "ToolsConfig":
        """What the results depend on: not how hard a service is driven, nor what may be spent."""
        return replace(self, llm=self.llm.identity)

    def __post_init__(self) -> None:
        """Refuse what no service takes.

        Raises:
            UsageError: a number is out of its range.
        """
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name}={value} is not from {low} to {high}: {WAYS_OUT[name]}")


@dataclass
class Tools:
    """Opened once for a job and shared by everything in it."""

    cfg: ToolsConfig = field(default_factory=ToolsConfig)
    root: Path | None = None
    sampler: Sampler | None = None
    """Of the index that is explained; None where there is none."""
    job: str = ""
    """Whose account calls are put on: the id of the run."""

    @cached_property
    def llm(self) -> LLM:
        """What explains, judges and writes; with a root, its replies are kept there and its limits hold."""
        if self.root is None:
            return backend_of(self.cfg.llm)
        return open_llm(self.cfg.llm, self.root, self.job, on_spend=self._note)

    def spent(self) -> str:
        """What the job has spent until now, for people; empty before its first call."""
        return told(self._spend) if self._spend.n_calls else ""

    def _note(self, spend: Spend) -> None:
        self._spend = spend

    _spend: Spend = field(default_factory=Spend, init=False, repr=False)

    def calls(self, keys: Iterable[str]) -> Rows:
        """The kept replies of these keys, as the table `calls` has them, without the run."""
        if self.root is None:
            return []
        replies = Replies(replies_file(self.root))
        return [_call(key, kept) for key in sorted(set(keys)) if (kept := replies.get(key)) is not None]

    @cached_property
    def reader(self) -> Reader:
        """What tells how likely a text is.

        Raises:
            UsageError: the backend tells no log-probabilities of prompts.
        """
        if not isinstance(self.llm, Reader):
            raise UsageError(
                f"{self.llm.name} tells no log-probabilities of a prompt, which this scorer needs: use --backend local"
            )
        return self.llm

    @cached_property
    def embedder(self) -> Embedder:
        """Texts to unit vectors."""
        return EMBEDDERS[self.cfg.embedder]()

    @cached_property
    def subject(self) -> Steerable:
        """The model that the index is of, with its dictionary, to encode new texts and to steer.

        Raises:
            UsageError: there is no index, or it was imported and has no model here.
        """
        if self.sampler is None:
            raise UsageError("no index, so there is no model to steer: name an index that was made here")
        from autointerp.subject import Subject

        folder = self.sampler.index.folder
        root = self.root or folder.parent.parent
        return Subject.open(find_run(root, str(folder), "index"), root)


def _call(key: str, kept: Kept) -> dict[str, Any]:
    return {
        "key": key,
        "model": kept.model,
        "prompt": kept.request.get("prompt", ""),
        "request": json.dumps(kept.request, ensure_ascii=False),
        "reply": kept.reply["text"],
        "n_tokens_in": kept.reply["n_tokens_in"],
        "n_tokens_out": kept.reply["n_tokens_out"],
        "usd": kept.reply.get("usd"),
    }
