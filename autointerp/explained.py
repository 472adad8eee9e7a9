"""The explanations of a run, read from its parts as they are asked for: those of a wide dictionary fill no memory."""

from collections.abc import Sequence
from functools import lru_cache
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex, final, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autointerp.latent import Explanation
from autointerp.rows import explanation_of
from store.index import part_paths
from store.run import Run

GROUPS = 8
"""Groups of rows kept after they are read: explanations are asked for in order, but for those of other latents."""


@final
class Explanations(Sequence[Explanation]):
    """What a run of explanations says, by ascending latent.

    Of each latent twelve bytes are held: its number and where its row lies. Rows are read a group at a time.
    """

    def __init__(self, run: Run) -> None:
        """Read which latents there are, and nothing else of them."""
        self._groups: list[tuple[Path, int]] = []
        found = [np.empty(0, np.int32)]
        for path in part_paths(run.folder, "explanations"):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    found.append(file.read_row_group(group, columns=["latent"]).column(0).to_numpy())
                    self._groups.append((path, group))
        latents, sizes = np.concatenate(found), [len(each) for each in found[1:]]
        order = np.argsort(latents, kind="stable")
        self.latents: np.ndarray = latents[order]
        """`[n]` int32."""
        self._group = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[order]
        self._row = np.concatenate([np.empty(0, np.int32), *(np.arange(n, dtype=np.int32) for n in sizes)])[order]
        self._rows = lru_cache(GROUPS)(self._read)

    def __len__(self) -> int:
        return len(self.latents)

    @overload
    def __getitem__(self, i: SupportsIndex) -> Explanation: ...
    @overload
    def __getitem__(self, i: slice) -> list[Explanation]: ...

    def __getitem__(self, i: SupportsIndex | slice) -> Explanation | list[Explanation]:
        if isinstance(i, slice):
            return [self[place] for place in range(len(self))[i]]
        i = index(i)
        row: list[dict[str, Any]] = self._rows(int(self._group[i])).slice(int(self._row[i]), 1).to_pylist()
        return explanation_of(row[0])

    def of(self, latent: int) -> Explanation | None:
        """What it says of a latent; None where it says nothing."""
        place = int(np.searchsorted(self.latents, latent, "right")) - 1
        return self[place] if place >= 0 and self.latents[place] == latent else None

    def _read(self, group: int) -> pa.Table:
        path, number = self._groups[group]
        with pq.ParquetFile(path) as file:
            return file.read_row_group(number, use_threads=False)
