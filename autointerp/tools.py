"""What explainers and scorers may use; each tool is opened when the first of them asks for it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from autointerp.embedders import EMBEDDERS, Embedder
from autointerp.llm import LLM, Reader, open_backend
from autointerp.sample import Sampler
from store.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ToolsConfig:
    """Which tools."""

    llm: str = "scripted"
    """A name in `BACKENDS`."""
    embedder: str = "minilm"
    """A name in `EMBEDDERS`."""


@dataclass
class Tools:
    """Opened once for a job and shared by everything in it."""

    cfg: ToolsConfig = field(default_factory=ToolsConfig)
    root: Path | None = None
    sampler: Sampler | None = None
    """Of the index that is explained; None where there is none."""

    @cached_property
    def llm(self) -> LLM:
        """What explains, judges and writes."""
        return open_backend(self.cfg.llm)

    @cached_property
    def reader(self) -> Reader:
        """What tells how likely a text is.

        Raises:
            UsageError: the backend tells no log-probabilities of prompts.
        """
        if not isinstance(self.llm, Reader):
            raise UsageError(
                f"{self.llm.name} tells no log-probabilities of a prompt, which this scorer needs: use --llm local"
            )
        return self.llm

    @cached_property
    def embedder(self) -> Embedder:
        """Texts to unit vectors.

        Raises:
            UsageError: there is none of that name.
        """
        if self.cfg.embedder not in EMBEDDERS:
            raise UsageError(f"no embedder '{self.cfg.embedder}': choose one of {', '.join(EMBEDDERS)}")
        return EMBEDDERS[self.cfg.embedder]()
