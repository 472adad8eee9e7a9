"""The activation store against plain files: writing, reading in order, reading random rows, bytes per row.

Run from anywhere: `python bench/harvest_store.py`. Writing is compared with the same bytes in plain files that are
made to reach the disk in the same way; reading is warm, and given beside a raw memory map and a plain read of the same
bytes.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from activations.reader import Activations
from bench import words
from bench.harness import Figure, Paired, main, paired, write
from bench.sides import N_THREADS, STUB_HOOK, stub_run
from store import layout
from store.run import Run
from store.shards import Rows, Shard, ShardToWrite, write_shards

N_TOKENS = 131_072
D_IN = words.D_MODEL
BATCH_ROWS = 2_048
REPEATS = 7


def measure() -> bool:
    """A harvest of worthless activations, then its shards against plain files with the same bytes."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = stub_run(folder, N_TOKENS)
        shards = [Shard(path) for path in layout.shards(run.folder, STUB_HOOK)]
        raw = plain_copies(shards, folder / "raw")
        out = torch.zeros(N_TOKENS, D_IN, dtype=torch.float16)
        writing = paired(plain_writer(shards, folder / "plain"), shard_writer(shards, folder / "shards"), REPEATS)
        in_order = paired(lambda: read_maps(raw, out), lambda: read_shards(shards, out), REPEATS)
        plain = paired(lambda: read_files(raw, out), lambda: read_shards(shards, out), REPEATS)
        random = paired(lambda: random_maps(raw), lambda: random_shards(shards), REPEATS)
        reader = paired(lambda: reader_in_order(run), lambda: reader_shuffled(run), REPEATS)
        figures = [
            *write_figures(writing, shards),
            *read_figures(in_order, plain, random, reader),
            *size_figures(run, shards),
        ]
    return write(
        "harvest_store",
        figures,
        n_rows=N_TOKENS,
        d_in=D_IN,
        dtype="float16",
        n_threads=N_THREADS,
        **{
            "write, plain file / shard": writing,
            "read in order, raw memory map / shard": in_order,
            "read in order, plain read / shard": plain,
            "random rows, raw memory map / shard": random,
            "reader to float32, in order / shuffled": reader,
        },
    )


def plain_copies(shards: list[Shard], folder: Path) -> list[Path]:
    """The vectors of each shard as a file of nothing else."""
    folder.mkdir()
    for number, shard in enumerate(shards):
        shard.vectors.tofile(folder / f"{number:05d}.bin")
    os.sync()  # as the shards were
    return sorted(folder.glob("*.bin"))


def plain_writer(shards: list[Shard], folder: Path) -> Callable[[], None]:
    """Writes the shards' bytes to plain files, each flushed to the disk with its folder."""
    folder.mkdir()
    contents = [shard.path.read_bytes() for shard in shards]

    def work() -> None:
        for number, content in enumerate(contents):
            with (folder / f"{number:05d}").open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(folder)

    return work


def shard_writer(shards: list[Shard], folder: Path) -> Callable[[], None]:
    """Writes the shards as a harvest does, checksums and renaming included."""
    folder.mkdir()
    rows = [Rows(vectors=np.array(shard.vectors), columns=dict(shard.columns)) for shard in shards]
    metadata = {"hook_point": STUB_HOOK}
    todo = [ShardToWrite(folder / f"{number:05d}.parquet", one, metadata) for number, one in enumerate(rows)]

    def work() -> None:
        write_shards(todo, "float16")

    return work


def sync_folder(folder: Path) -> None:
    """The folder's own entry, as a rename needs it."""
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def read_shards(shards: list[Shard], out: Tensor) -> None:
    """Open every shard and copy its vectors into `out`."""
    fill(out, [Shard(shard.path).vectors for shard in shards])


def read_maps(paths: list[Path], out: Tensor) -> None:
    """The same from memory maps of plain files."""
    fill(out, [memory_map(path) for path in paths])


def read_files(paths: list[Path], out: Tensor) -> None:
    """The same with plain reads straight into `out`."""
    view, start = memoryview(out.numpy().view(np.uint8).reshape(-1)), 0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            start += file.readinto(view[start : start + path.stat().st_size])


def fill(out: Tensor, parts: list[np.ndarray]) -> None:
    """`parts` one after the other in `out`."""
    start = 0
    for part in parts:
        out.numpy()[start : start + len(part)] = part
        start += len(part)


def memory_map(path: Path) -> np.ndarray:
    """A plain file's vectors."""
    return np.memmap(path, np.float16, "r").reshape(-1, D_IN)


def random_shards(shards: list[Shard]) -> None:
    """Every row once, in random order within its shard."""
    take_random([Shard(shard.path).vectors for shard in shards])


def random_maps(paths: list[Path]) -> None:
    """The same from memory maps of plain files."""
    take_random([memory_map(path) for path in paths])


def take_random(parts: list[np.ndarray]) -> None:
    """Batches of rows, each gathered into an array of its own."""
    random = np.random.default_rng(0)
    for part in parts:
        order = random.permutation(len(part))
        for start in range(0, len(part), BATCH_ROWS):
            _ = part[order[start : start + BATCH_ROWS]]


def reader_in_order(run: Run) -> None:
    """Every row as float32, as stored."""
    for _ in Activations(run, STUB_HOOK).rows("all", ("normal", "special", "sink"), first=True).in_order(BATCH_ROWS):
        pass


def reader_shuffled(run: Run) -> None:
    """As many rows as float32, shuffled as for training."""
    rows = Activations(run, STUB_HOOK).rows("all", ("normal", "special", "sink"), first=True)
    with closing(rows.shuffled(BATCH_ROWS, 0)) as batches:
        for _ in islice(batches, N_TOKENS // BATCH_ROWS):
            pass


def write_figures(writing: Paired, shards: list[Shard]) -> list[Figure]:
    """Speed, and its share of a plain file's."""
    megabytes = sum(shard.path.stat().st_size for shard in shards) / 1e6
    return [
        Figure("shard / plain file, writing", writing.ratio, "ratio", ">= 0.8"),
        Figure("writing shards", megabytes / writing.median_b, "MB/s"),
        Figure("writing plain files", megabytes / writing.median_a, "MB/s"),
    ]


def read_figures(in_order: Paired, plain: Paired, random: Paired, reader: Paired) -> list[Figure]:
    """Rows per second, of the store and of what it stands on."""
    return [
        Figure("shards in order to torch", N_TOKENS / in_order.median_b, "rows/s", ">= 3e6"),
        Figure("raw memory maps in order to torch", N_TOKENS / in_order.median_a, "rows/s"),
        Figure("plain reads in order to torch", N_TOKENS / plain.median_a, "rows/s"),
        Figure("random rows of shards", N_TOKENS / random.median_b, "rows/s", ">= 1e6"),
        Figure("random rows of raw memory maps", N_TOKENS / random.median_a, "rows/s"),
        Figure("reader, in order to float32", N_TOKENS / reader.median_a, "rows/s"),
        Figure("reader, shuffled to float32", N_TOKENS / reader.median_b, "rows/s"),
    ]


def size_figures(run: Run, shards: list[Shard]) -> list[Figure]:
    """Bytes of the shards, and of all that the harvest wrote."""
    shard_bytes = sum(shard.path.stat().st_size for shard in shards)
    all_bytes = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    allowed = 2 * D_IN + 16
    return [
        Figure("bytes per row / (2 d + 16), shards", shard_bytes / N_TOKENS / allowed, "ratio", "<= 1"),
        Figure("bytes per row, shards", shard_bytes / N_TOKENS, "bytes"),
        Figure("bytes per row, the whole harvest", all_bytes / N_TOKENS, "bytes"),
    ]


if __name__ == "__main__":
    main(measure)
