"""Events of chosen latents in order of latent, read from the index's parts a batch at a time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import GROUP_ROWS, part_path

BATCH_ROWS = 65_536
COLUMNS = ("latent", "seq", "pos", "value")


def event_batches(index: FeatureIndex, latents: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """`latent seq pos value` of all events kept of `latents`, a batch at a time, in order of latent, seq and pos.

    Args:
        index: whose events.
        latents: ascending.

    Raises:
        UsageError: a part is damaged or missing.
    """
    wanted = np.zeros(index.n_latents, bool)
    wanted[latents] = True
    rows = index.arrow("SELECT latent, part, first_row, n_events FROM latents WHERE n_events > 0 ORDER BY latent")
    at = {name: rows.column(name).to_numpy() for name in rows.column_names}
    chosen = wanted[at["latent"]]
    for number in np.unique(at["part"][chosen]).tolist():
        here = chosen & (at["part"] == number)
        groups = _groups(at["first_row"][here], at["n_events"][here])
        for batch in _batches(index, number, groups):
            columns = {name: batch.column(name).to_numpy() for name in COLUMNS}
            keep = wanted[columns["latent"]]
            yield columns if keep.all() else {name: column[keep] for name, column in columns.items()}


def _groups(first: np.ndarray, n: np.ndarray) -> list[int]:
    """Row groups that hold rows `first` to `first + n` of any latent, ascending."""
    low, high = first // GROUP_ROWS, (first + n - 1) // GROUP_ROWS
    return sorted({group for a, b in zip(low.tolist(), high.tolist(), strict=True) for group in range(a, b + 1)})


def _batches(index: FeatureIndex, number: int, groups: list[int]) -> Iterator[pa.RecordBatch]:
    path = part_path(index.folder, "events", number)
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(COLUMNS), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{path} is damaged or missing ({error}): mend it with `monosem index --repair {index.folder.name}`"
        ) from error
