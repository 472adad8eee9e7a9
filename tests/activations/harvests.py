"""A small harvest that many tests share, and what they ask of harvests."""

from pathlib import Path

import numpy as np

from activations.harvest import HarvestConfig
from activations.prepare import read_window
from activations.reader import Activations
from activations.sequences import TokenSequence
from activations.text import TextConfig
from store.run import UNCHECKED, Run

HOOKS = ("blocks.1.hook_resid_post", "blocks.0.attn.hook_z")
CFG = HarvestConfig(
    model="tiny",
    hook_points=HOOKS,
    text=TextConfig(corpus="stories", n_tokens=4000),
    n_ctx=64,
    batch_size=8,
    shard_rows=500,
    window_shards=2,
)


def sequences_of(run: Run) -> dict[int, TokenSequence]:
    windows = (read_window(run.folder, number) for number in range(run.results["n_windows"]))
    return {sequence.seq: sequence for window in windows for sequence in window}


def columns_of(run: Run, hook_point: str) -> dict[str, np.ndarray]:
    opened = [block.open() for block in Activations(run, hook_point).blocks]
    return {name: np.concatenate([rows.columns[name] for rows in opened]) for name in opened[0].columns}


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name not in UNCHECKED]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
