"""Harvest: run the model over the text once and keep what it computes at each hook point, as shards.

Sequences go through the model window by window. A window's rows are shuffled and written as shards, then the window's
receipt is written: a harvest that was killed goes on at the first window without one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from einops import rearrange
from torch import Tensor

from activations.hook_point import HookPoint
from activations.lm import LanguageModel
from activations.models import DEFAULT_MODEL, find_model, load_model
from activations.progress import Progress, no_progress
from activations.reader import summarise
from activations.sequences import Batch, TokenizedText, TokenSequence, batches, tokenize
from activations.text import Source, TextConfig, read_sources, sources_hash
from activations.tokenizer import Tokenizer
from store.errors import UsageError
from store.files import read_json, whole_file, write_json
from store.run import Run, start_run
from store.shards import STORED_AS, TOKEN_CLASSES, DTypeName, Rows, write_shard


@dataclass(frozen=True, kw_only=True)
class HarvestConfig:
    """What to harvest."""

    model: str = DEFAULT_MODEL
    """`tiny`, `wheel:NAME`, `hub:ORG/NAME`, a folder with safetensors, or a .gguf file."""
    hook_points: tuple[str, ...] = ("blocks.8.hook_resid_post",)
    """TransformerLens names; all come from one forward pass."""
    text: TextConfig = field(default_factory=TextConfig)
    n_ctx: int = 128
    """Tokens the model sees at once, BOS included."""
    dtype: DTypeName = "float16"
    """How vectors are stored."""
    batch_size: int = 16
    """Sequences per forward pass."""
    shard_rows: int = 16_384
    """Rows per shard file."""
    window_sequences: int = 512
    """Sequences whose rows are shuffled together before they are written."""
    sink_norm_ratio: float = 2.5
    """A token whose norm exceeds this many medians is classed as a sink, like the first position."""
    seed: int = 0
    """Shuffling of rows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_ctx < 2:
            raise UsageError(f"n_ctx={self.n_ctx} is too short: choose at least 2")
        if self.dtype not in STORED_AS:
            raise UsageError(f"dtype '{self.dtype}' cannot be stored: choose one of {', '.join(STORED_AS)}")
        if not self.hook_points:
            raise UsageError("no hook point given: name at least one, such as blocks.8.hook_resid_post")


def harvest(cfg: HarvestConfig, root: Path, progress: Progress = no_progress) -> Run:
    """Harvest into `root/activations/<hash>`, or return the run that is already there.

    Raises:
        UsageError: unknown model, text or hook point; values that the dtype cannot hold; a full disk.
    """
    files = find_model(cfg.model)
    sources = read_sources(cfg.text.corpus)
    request = {"harvest": cfg, "weights": files.weights_hash, "text": sources_hash(sources)}
    with start_run(root, "activations", request, {}) as run:
        if not run.finished:
            _harvest_into(run, cfg, sources, progress)
        return run


def _harvest_into(run: Run, cfg: HarvestConfig, sources: list[Source], progress: Progress) -> None:
    lm = load_model(cfg.model)
    if cfg.n_ctx > lm.n_ctx:
        raise UsageError(f"n_ctx={cfg.n_ctx} exceeds the {lm.n_ctx} of {lm.name}: choose less")
    hook_points = [lm.hook_point(name) for name in cfg.hook_points]
    text = tokenize(lm.tokenizer, sources, cfg.text, cfg.n_ctx)
    _write_text(run.folder, text)
    windows = _windows(run.folder, cfg, text)
    jobs = [(window, batch) for window in windows for batch in batches(window.sequences, cfg.batch_size)]
    collected: list[dict[str, Rows]] = []
    for window, batch in progress(jobs, len(jobs), f"harvest {', '.join(cfg.hook_points)}"):
        collected.append(_capture(lm, batch, hook_points))
        if sum(len(part[hook_points[0].name]) for part in collected) == window.n_rows:
            _write_window(run.folder, cfg, lm.tokenizer, window, collected)
            collected = []
    run.finish(
        {
            "n_tokens": text.n_tokens,
            "n_sequences": len(text.sequences),
            "n_documents": len(text.documents),
            "n_documents_heldout": sum(text.heldout),
            "tokenizer": lm.tokenizer.fingerprint,
            "n_layers": lm.n_layers,
            "d_model": lm.d_model,
            "hook_points": {
                name: summarise(run.folder, name, text.heldout, sink_norm)
                for name, sink_norm in read_json(_receipt(run.folder, 0))["sink_norms"].items()
            },
        }
    )


def _write_text(folder: Path, text: TokenizedText) -> None:
    tables = text.tables()
    for path, name in ((folder / "documents.parquet", "documents"), (folder / "tokens/tokens.parquet", "sequences")):
        with whole_file(path) as scratch:
            pq.write_table(tables[name], scratch, compression="zstd")


@dataclass(frozen=True)
class Window:
    """Sequences whose rows are shuffled together."""

    number: int
    sequences: tuple[TokenSequence, ...]

    @property
    def n_rows(self) -> int:
        """Vectors it gives at each hook point."""
        return sum(len(sequence) for sequence in self.sequences)


def _receipt(folder: Path, number: int) -> Path:
    return folder / "windows" / f"{number:05d}.json"


def _windows(folder: Path, cfg: HarvestConfig, text: TokenizedText) -> list[Window]:
    """The windows that are not on disk yet."""
    starts = range(0, len(text.sequences), cfg.window_sequences)
    windows = [Window(n, text.sequences[i : i + cfg.window_sequences]) for n, i in enumerate(starts)]
    return [window for window in windows if not _receipt(folder, window.number).exists()]


def _capture(lm: LanguageModel, batch: Batch, hook_points: Sequence[HookPoint]) -> dict[str, Rows]:
    """One forward pass: a row for every token that is not padding."""
    captured = lm.capture(batch.tokens, hook_points)
    kept = batch.mask.flatten()
    seq = torch.tensor([sequence.seq for sequence in batch.sequences])
    doc_id = torch.tensor([sequence.doc_id for sequence in batch.sequences])
    shape = batch.tokens.shape
    columns = {
        "token_id": batch.tokens,
        "doc_id": doc_id[:, None].expand(shape),
        "seq": seq[:, None].expand(shape),
        "pos": torch.arange(shape[1]).expand(shape),
    }
    flat = {name: column.flatten()[kept].numpy() for name, column in columns.items()}
    return {
        name: Rows(vectors=_flatten(x)[kept].float().cpu().numpy(), columns=dict(flat)) for name, x in captured.items()
    }


def _flatten(x: Tensor) -> Tensor:
    """`[batch, pos, …]` to `[batch · pos, d_in]`: per-head activations lie side by side."""
    return rearrange(x.flatten(2), "batch pos d_in -> (batch pos) d_in")


def _write_window(
    folder: Path, cfg: HarvestConfig, tokenizer: Tokenizer, window: Window, collected: list[dict[str, Rows]]
) -> None:
    order = np.random.default_rng([cfg.seed, window.number]).permutation(window.n_rows)
    sink_norms: dict[str, float] = {}
    for name in cfg.hook_points:
        rows = _joined([part[name] for part in collected])
        norms = np.linalg.norm(rows.vectors, axis=1)
        sink_norms[name] = _sink_norm(folder, window, name, norms[rows.columns["pos"] > 0], cfg.sink_norm_ratio)
        rows.columns["token_class"] = _token_class(rows, norms, sink_norms[name], tokenizer)
        stored = Rows(vectors=_stored(rows, cfg.dtype, name), columns=rows.columns).take(order)
        for part, start in enumerate(range(0, len(stored), cfg.shard_rows)):
            write_shard(
                folder / name / f"shard-{window.number:05d}-{part:03d}.parquet",
                stored.take(np.arange(start, min(start + cfg.shard_rows, len(stored)))),
                cfg.dtype,
                {"hook_point": name, "model": cfg.model, "tokenizer": tokenizer.fingerprint},
            )
    write_json(_receipt(folder, window.number), {"n_sequences": len(window.sequences), "sink_norms": sink_norms})


def _joined(parts: list[Rows]) -> Rows:
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    return Rows(vectors=np.concatenate([part.vectors for part in parts]), columns=columns)


def _sink_norm(folder: Path, window: Window, name: str, norms: np.ndarray, ratio: float) -> float:
    """The norm above which a token is a sink: set by the first window, so that it is one rule for the whole harvest."""
    first = _receipt(folder, 0)
    return read_json(first)["sink_norms"][name] if window.number else float(ratio * np.median(norms))


def _token_class(rows: Rows, norms: np.ndarray, sink_norm: float, tokenizer: Tokenizer) -> np.ndarray:
    special = np.isin(rows.columns["token_id"], sorted(tokenizer.special_ids))
    classes = np.where(special, TOKEN_CLASSES["special"], TOKEN_CLASSES["normal"])
    sink = (rows.columns["pos"] == 0) | (norms > sink_norm)
    return np.where(sink, TOKEN_CLASSES["sink"], classes).astype(np.int8)


def _stored(rows: Rows, dtype: DTypeName, name: str) -> np.ndarray:
    """`rows.vectors` in the stored dtype.

    Raises:
        UsageError: a value is not finite, or too large for float16.
    """
    largest = np.abs(rows.vectors).max(axis=1)
    limit = float(np.finfo(np.float16).max) if dtype == "float16" else np.inf
    bad = ~np.isfinite(largest) | (largest > limit)
    if bad.any():
        row = int(bad.argmax())
        place = f"{name}, document {rows.columns['doc_id'][row]}, position {rows.columns['pos'][row]}"
        if np.isfinite(largest[row]):
            raise UsageError(f"{largest[row]:.6g} at {place} exceeds float16's 65504: use --dtype bfloat16 or float32")
        raise UsageError(f"a value at {place} is not finite: the model overflows there; load it in float32")
    if dtype == "bfloat16":
        bits = torch.from_numpy(rows.vectors).bfloat16().view(torch.int16)
        return bits.numpy().view(STORED_AS[dtype])
    return rows.vectors.astype(STORED_AS[dtype])
