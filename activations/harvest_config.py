"""What to harvest: the settings of a harvest, asked for and recorded."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from activations.hook_point import HookPoint
from activations.models import DEFAULT_MODEL, DTYPES
from activations.text import TextConfig
from activations.window import WindowJob
from store.errors import UsageError
from store.run import Run
from store.shards import STORED_AS, DTypeName

Retention = Literal["all", "none"]


@dataclass(frozen=True, kw_only=True)
class HarvestConfig:
    """What to harvest."""

    model: str = DEFAULT_MODEL
    """`tiny`, `wheel:NAME`, a hub id such as `gpt2`, a folder with safetensors, or a .gguf file."""
    revision: str | None = None
    """Branch, tag or commit of a model from the hub."""
    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the best there is."""
    model_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the model computes in."""
    hook_points: tuple[str, ...] = ("blocks.8.hook_resid_post",)
    """TransformerLens names; `*` and `{4,8}` stand for several. All come from one forward pass."""
    text: TextConfig = field(default_factory=TextConfig)
    n_ctx: int = 128
    """Tokens the model sees at once, BOS included."""
    dtype: DTypeName = "float16"
    """How vectors are stored."""
    keep_activations: Retention = "all"
    """`none` stores no vector: they are computed again whenever they are read, for models too wide for the disk."""
    batch_size: int = 16
    """Full-length sequences per forward pass; more of shorter ones."""
    shard_rows: int = 16_384
    """Rows per shard file."""
    window_shards: int = 2
    """Shards whose rows are shuffled together before they are written."""
    sink_norm_ratio: float = 2.5
    """A token whose norm exceeds this many medians is classed as a sink, like the first position."""
    seed: int = 0
    """Shuffling of rows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_ctx < 2:
            raise UsageError(f"n_ctx={self.n_ctx} is too short: choose at least 2")
        for name in ("batch_size", "shard_rows", "window_shards"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} is not positive: choose at least 1")
        if not 1 < self.sink_norm_ratio < math.inf:
            raise UsageError(
                f"sink_norm_ratio={self.sink_norm_ratio} is not a finite number above 1: choose such as 2.5"
            )
        if self.seed < 0:
            raise UsageError(f"seed={self.seed} is negative: choose 0 or more")
        for name, known in (
            ("dtype", tuple(STORED_AS)),
            ("model_dtype", DTYPES),
            ("keep_activations", ("all", "none")),
        ):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} '{getattr(self, name)}' is not known: choose one of {', '.join(known)}")
        if not self.hook_points:
            raise UsageError("no hook point given: name at least one, such as blocks.8.hook_resid_post")

    @property
    def window_rows(self) -> int:
        """Rows shuffled together."""
        return self.shard_rows * self.window_shards

    @property
    def batch_tokens(self) -> int:
        """Tokens and padding in one forward pass, at most."""
        return self.batch_size * self.n_ctx

    def window_job(self, hook_points: tuple[HookPoint, ...]) -> WindowJob:
        """What is the same for every window, at these hook points."""
        return WindowJob(hook_points=hook_points, dtype=self.dtype, batch_tokens=self.batch_tokens, seed=self.seed)


def recorded_config(run: Run) -> HarvestConfig:
    """What a harvest was made with."""
    settings: dict[str, Any] = dict(run.config["harvest"])
    text = TextConfig(**settings.pop("text"))
    return HarvestConfig(**{**settings, "hook_points": tuple(settings["hook_points"])}, text=text)
