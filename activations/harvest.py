"""Harvest: run the model over the text once and keep what it computes at each hook point, as shards.

First documents and sequences are written (`prepare`), then windows of them go through the model (`window`) and to disk
(`shard_writer`). A window's receipt is written last: a harvest that was killed goes on at the first window without one.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from activations.hook_point import expand_hook_points
from activations.keep import Harvest, keep_windows, sample_first_window
from activations.lm import LanguageModel
from activations.models import DEFAULT_MODEL, DTYPES, ModelFiles, find_model, known_hook_names, load_model
from activations.prepare import prepare
from activations.progress import Progress, no_progress
from activations.text import Source, TextConfig, read_sources, sources_hash
from store.errors import DiskFull, UsageError
from store.run import Run, start_run
from store.shards import STORED_AS, DTypeName

TEXT_BYTES_PER_TOKEN = 16
"""Of documents and tokens on the disk, about."""
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


def harvest(cfg: HarvestConfig, root: Path, progress: Progress = no_progress) -> Run:
    """Harvest into `root/activations/<hash>`, or return the run that is already there.

    The hash is over contents: the model's weights, config and tokenizer, the text, and every setting that changes a
    vector. Where the files lie and which device computes do not count.

    Raises:
        UsageError: unknown model, text or hook point; values that the dtype cannot hold; a full disk.
    """
    files = find_model(cfg.model, cfg.revision)
    sources = read_sources(cfg.text)
    known, lm = known_hook_names(files), None
    if known is None:
        lm = _load(cfg)
        known = lm.hook_names()
    names = expand_hook_points(cfg.hook_points, known)
    cfg = dataclasses.replace(cfg, hook_points=names)
    same = request_identity(cfg, files, sources)
    with start_run(root, "activations", {"harvest": cfg}, {}, same) as run:
        if not run.finished:
            _make(run, cfg, lm or _load(cfg), sources, progress)
        return run


def _load(cfg: HarvestConfig) -> LanguageModel:
    return load_model(cfg.model, revision=cfg.revision, device=cfg.device, dtype=cfg.model_dtype)


ELSEWHERE = {
    HarvestConfig: ("model", "revision", "device", "text"),
    TextConfig: ("corpus", "dataset_name", "dataset_split", "dataset_revision"),
}
"""Settings that say where something is found: what is found there is hashed in their place."""


def request_identity(cfg: HarvestConfig, files: ModelFiles, sources: Sequence[Source]) -> dict[str, Any]:
    """What two harvests have in common that are the same."""
    return {
        "model": files.identity,
        "text": sources_hash(sources),
        "settings": _but(cfg, ELSEWHERE[HarvestConfig]) | {"hook_points": sorted(cfg.hook_points)},
        "text_settings": _but(cfg.text, ELSEWHERE[TextConfig]),
    }


def _but(config: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in names}


def _make(run: Run, cfg: HarvestConfig, lm: LanguageModel, sources: Sequence[Source], progress: Progress) -> None:
    if cfg.n_ctx > lm.n_ctx:
        raise UsageError(f"n_ctx={cfg.n_ctx} exceeds the {lm.n_ctx} of {lm.name}: choose less")
    hook_points = tuple(lm.hook_point(name) for name in cfg.hook_points)
    try:
        text = prepare(run.folder, lm.tokenizer, list(sources), cfg.text, cfg.n_ctx, cfg.window_rows, progress)
    except DiskFull as error:
        needed = TEXT_BYTES_PER_TOKEN * cfg.text.n_tokens
        raise UsageError(f"{error}. The text and its tokens need about {needed:,} bytes, before any vector") from error
    job = Harvest.of(run.folder, cfg, lm, hook_points, [window["n_rows"] for window in text["windows"]])
    found, known = keep_windows(job, progress) if cfg.keep_activations == "all" else sample_first_window(job)
    counts = {key: value for key, value in text.items() if key.startswith("n_")}
    about = {
        "n_windows": len(text["windows"]),
        "bos_id": text["bos_id"],
        "heldout_up_to": text["heldout_up_to"],
        "tokenizer": lm.tokenizer.fingerprint,
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "device": lm.device,
    }
    run.finish({**counts, **about, **found}, known)
