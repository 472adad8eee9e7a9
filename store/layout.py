"""Where a harvest keeps what: the only place that knows its file names.

manifest.json
documents/part-00000.parquet     documents with their split
tokens/part-00000.parquet        sequences of window 0
HOOK_POINT/shard-00000-000.parquet
windows/00000.json               receipt of window 0: its shards with their checksums, written last
windows/00000.parquet            statistics of window 0
statistics.parquet               statistics of the whole harvest
"""

import re
from pathlib import Path

from store.errors import UsageError

TEXT = "text.json"
STATISTICS = "statistics.parquet"
PROGRESS = "progress.jsonl"
RECEIPT_NAME = re.compile(r"^windows/(?P<window>\d+)\.json$")
WINDOW_STATISTICS_NAME = re.compile(r"^windows/(?P<window>\d+)\.parquet$")
SHARD_NAME = re.compile(r"^(?P<hook_point>[^/]+)/shard-(?P<window>\d+)-\d+\.parquet$")
TEXT_NAME = re.compile(r"^(documents/|tokens/|text\.json$)")
"""What names of files of each kind look like, below the run's folder."""


def document_part(folder: Path, number: int) -> Path:
    """A part of the documents, in order of `doc_id`."""
    return folder / "documents" / f"part-{number:05d}.parquet"


def document_parts(folder: Path) -> list[Path]:
    """All parts of the documents, in order."""
    return sorted((folder / "documents").glob("part-*.parquet"))


def token_part(folder: Path, window: int) -> Path:
    """The sequences of one window."""
    return folder / "tokens" / f"part-{window:05d}.parquet"


def token_parts(folder: Path) -> list[Path]:
    """The sequences of every window, in order of `seq`."""
    return sorted((folder / "tokens").glob("part-*.parquet"))


def receipt(folder: Path, window: int) -> Path:
    """Written when all shards of a window are on disk."""
    return folder / "windows" / f"{window:05d}.json"


def receipts(folder: Path) -> list[Path]:
    """The receipts of every finished window, in order."""
    return sorted((folder / "windows").glob("*.json"))


def window_statistics(folder: Path, window: int) -> Path:
    """Moments of one window's rows."""
    return folder / "windows" / f"{window:05d}.parquet"


def all_window_statistics(folder: Path) -> list[Path]:
    """The statistics of every window, in order."""
    return sorted((folder / "windows").glob("*.parquet"))


def shard(folder: Path, hook_point: str, window: int, part: int) -> Path:
    """One shard of a window."""
    return folder / hook_point / f"shard-{window:05d}-{part:03d}.parquet"


def window_of(shard: Path) -> int:
    """The window whose rows a shard holds.

    Raises:
        UsageError: its name is no shard's.
    """
    found = SHARD_NAME.match(f"{shard.parent.name}/{shard.name}")
    if found is None:
        raise UsageError(f"{shard} is no shard of a window: take it out of the folder")
    return int(found["window"])


def window_shards(folder: Path, hook_point: str, window: int) -> list[Path]:
    """The shards of one window, in order."""
    return sorted((folder / hook_point).glob(f"shard-{window:05d}-*.parquet"))


def shards(folder: Path, hook_point: str) -> list[Path]:
    """All shards of a hook point, in the order they were written.

    Raises:
        UsageError: there are none.
    """
    paths = sorted((folder / hook_point).glob("shard-*.parquet"))
    if not paths:
        raise UsageError(
            f"{folder / hook_point} has no shard: mend the harvest with `monosem harvest --repair {folder.name}`"
        )
    return paths
