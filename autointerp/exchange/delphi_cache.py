"""Reads delphi's latent cache (EleutherAI/delphi), whoever wrote it: every number is checked before it is used."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from store.errors import UsageError
from store.files import read_json

SHARD_NAME = re.compile(r"(\d{1,9})_(\d{1,9})\.safetensors")
COUNTED = "counted.npy"
CHUNK = 1 << 20
"""Events looked at together."""
MOST_LATENTS, MOST_TOKENS, MOST_CTX = 1 << 24, 1 << 36, 1 << 20
WHOLE = {"U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "I64": "<i8"}
REAL = {"F16": "<f2", "F32": "<f4"}
TENSORS = {"locations": WHOLE, "activations": REAL, "tokens": WHOLE}
"""What a shard holds, and of which types each may be."""


class Events(NamedTuple):
    """Some events of a shard."""

    row: np.ndarray
    pos: np.ndarray
    latent: np.ndarray
    value: np.ndarray
    """`[n]` float32."""


@dataclass(frozen=True)
class CacheShard:
    """One file of the cache, mapped into memory."""

    path: Path
    first: int
    last: int
    locations: np.ndarray
    """`[n, 3]` row, position, latent minus `first`."""
    activations: np.ndarray
    """`[n]`."""
    tokens: np.ndarray
    """`[n_rows, ctx]`."""

    def events(self) -> Iterator[Events]:
        """All events, some at a time.

        Raises:
            UsageError: a number that cannot be: the file and where in it.
        """
        bounds = np.array([*self.tokens.shape, self.last - self.first + 1])
        for start in range(0, len(self.activations), CHUNK):
            where = self.locations[start : start + CHUNK].astype(np.int64)
            value = self.activations[start : start + CHUNK].astype(np.float32)
            outside = np.argwhere((where < 0) | (where >= bounds))
            if len(outside):
                at, column = outside[0].tolist()
                what = ("row", "position", "latent")[column]
                raise UsageError(
                    f"{self.path}: locations[{start + at}] has {what} {where[at, column]}, the file's are 0 to "
                    f"{bounds[column] - 1}: cache the activations again"
                )
            bad = np.flatnonzero(~np.isfinite(value))
            if len(bad):
                at = int(bad[0])
                raise UsageError(
                    f"{self.path}: activations[{start + at}], of latent {self.first + where[at, 2]}, is {value[at]}: "
                    "an activation must be a finite number, cache them again"
                )
            yield Events(where[:, 0], where[:, 1], where[:, 2] + self.first, value)


@dataclass(frozen=True)
class Cache:
    """The cache of one hook point."""

    folder: Path
    hook_point: str
    config: dict[str, Any]
    shards: tuple[CacheShard, ...]
    counted: np.ndarray | None
    """`[n_rows, ctx]` int8 as monosem's own export has it: 1 where a token counts, -1 for padding."""

    @property
    def tokens(self) -> np.ndarray:
        """`[n_rows, ctx]` token ids."""
        return self.shards[0].tokens

    @property
    def d_sae(self) -> int:
        """Latents."""
        return self.shards[-1].last + 1

    @property
    def n_events(self) -> int:
        """All that is stored."""
        return sum(len(shard.activations) for shard in self.shards)

    @property
    def files(self) -> list[Path]:
        """What is read of it."""
        extra = [] if self.counted is None else [self.folder / COUNTED]
        return [self.folder / "config.json", *extra, *(shard.path for shard in self.shards)]

    def shard_of(self, latent: int) -> CacheShard:
        """The shard that holds a latent."""
        return next(shard for shard in self.shards if latent <= shard.last)


def open_cache(path: Path, hook_point: str | None = None) -> Cache:
    """The cache in `path`: a hook point's own folder, or the folder of all.

    Args:
        path: where it lies.
        hook_point: which of several.

    Raises:
        UsageError: there is none, or it is damaged, or its shards do not fit together.
    """
    folder = _folder(path, hook_point)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UsageError(f"{folder / 'config.json'} is no JSON object: cache the activations again")
    shards = _shards(folder)
    counted = _counted(folder / COUNTED, shards[0].tokens.shape) if (folder / COUNTED).exists() else None
    return Cache(folder, folder.name, config, shards, counted)


def _folder(path: Path, hook_point: str | None) -> Path:
    if (path / "config.json").exists():
        return path
    found = sorted(file.parent for file in path.glob("*/config.json")) if path.is_dir() else []
    names = ", ".join(folder.name for folder in found)
    if hook_point is not None:
        found = [folder for folder in found if folder.name == hook_point]
    if len(found) == 1:
        return found[0]
    if names:
        raise UsageError(f"{path} has the caches {names}: name one with --hook-point")
    raise UsageError(f"{path} has no config.json, nor has a folder in it: name the folder that delphi calls `latents`")


def _shards(folder: Path) -> tuple[CacheShard, ...]:
    named = sorted((int(found[1]), int(found[2]), path) for path, found in _named(folder))
    if not named:
        raise UsageError(f"{folder} has no FIRST_LAST.safetensors: cache the activations again")
    expected = 0
    for first, last, path in named:
        if first < expected:
            raise UsageError(f"{path}: latent {first} is in the file before it too: take one of the two away")
        if first > expected:
            raise UsageError(f"{path} begins at latent {first}, latents {expected} to {first - 1} are missing")
        if last < first or last >= MOST_LATENTS:
            raise UsageError(f"{path} names latents {first} to {last}: the last must be {first} to {MOST_LATENTS - 1}")
        expected = last + 1
    shards = tuple(_shard(path, first, last) for first, last, path in named)
    for shard in shards[1:]:
        if shard.tokens.shape != shards[0].tokens.shape or not _same(shard.tokens, shards[0].tokens):
            raise UsageError(f"{shard.path} has other tokens than {shards[0].path.name}: they are of two caches")
    if not any(len(shard.activations) for shard in shards):
        raise UsageError(f"{folder} has no event in any file: cache activations on which the dictionary fires")
    return shards


def _named(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in folder.glob("*.safetensors"):
        found = SHARD_NAME.fullmatch(path.name)
        if found is None:
            raise UsageError(
                f"{path} is not called FIRST_LAST.safetensors after its latents: take it out of the folder"
            )
        yield path, found


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    step = max(1, CHUNK // max(a.shape[1], 1))
    return all(np.array_equal(a[start : start + step], b[start : start + step]) for start in range(0, len(a), step))


def _shard(path: Path, first: int, last: int) -> CacheShard:
    arrays = _mapped(path)
    locations, activations, tokens = arrays["locations"], arrays["activations"], arrays["tokens"]
    if locations.shape != (activations.size, 3) or activations.ndim != 1:
        raise UsageError(
            f"{path}: locations is {list(locations.shape)} and activations {list(activations.shape)}, which should be "
            "[n, 3] and [n]: cache the activations again"
        )
    if tokens.ndim != 2 or not tokens.size or tokens.shape[1] > MOST_CTX or tokens.size > MOST_TOKENS:
        raise UsageError(f"{path}: tokens is {list(tokens.shape)}, which should be [rows, ctx]: cache them again")
    return CacheShard(path, first, last, locations, activations, tokens)


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The shard's tensors, read from the disk when they are used.

    Raises:
        UsageError: it is no safetensors file, or lacks a tensor, or one is of a type that it cannot be.
    """
    try:
        with safe_open(path, "numpy"):  # checks that the header is whole and the offsets fit the file
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} is no whole safetensors file ({error}): cache the activations again") from error
    arrays = {}
    for name, allowed in TENSORS.items():
        if name not in header:
            saved = " with save_tokens" if name == "tokens" else ""
            raise UsageError(f"{path} has no tensor '{name}': cache the activations again{saved}")
        described = header[name]
        if described["dtype"] not in allowed:
            raise UsageError(f"{path}: {name} is {described['dtype']}: it must be {' or '.join(allowed)}")
        arrays[name] = _array(path, allowed[described["dtype"]], 8 + size + described["data_offsets"][0], described)
    return arrays


def _array(path: Path, dtype: str, offset: int, described: dict[str, Any]) -> np.ndarray:
    shape = tuple(described["shape"])
    if not all(shape):
        return np.empty(shape, dtype)  # of nothing there is no map
    return np.memmap(path, dtype, "r", offset, shape)


def _counted(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        counted = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            f"{path} is damaged ({error}): delete it, and every token counts that is not special"
        ) from error
    if counted.dtype != np.int8 or counted.shape != shape:
        raise UsageError(
            f"{path} is {counted.dtype} {list(counted.shape)}, the tokens are {list(shape)}: delete it, and every "
            "token counts that is not special"
        )
    return counted
